"""The flag ``--kvstore``, and a check of the environment variables that it needs."""

import importlib.util
import os

from bert.distributed.parameter_server import HEARTBEAT
from bert.system.errors import UsageError


def add_kvstore_flag(parser, group, roles=''):
    """Add ``--kvstore``."""
    parser.flag(
        group,
        '--kvstore',
        default='device',
        choices=['device', 'local', 'dist_sync', 'horovod'],
        roles=roles,
        help='how gradients are aggregated: device or local (on the CPU) across the GPUs of this '
        'process; dist_sync or horovod also across processes, on one machine or several, started '
        'by python -m bert.cluster or horovodrun',
    )


DMLC_ROLES = ('scheduler', 'server', 'worker')
DMLC_NUMBERS = ('DMLC_PS_ROOT_PORT', 'DMLC_NUM_SERVER', 'DMLC_NUM_WORKER')


def check_kvstore(args):
    """Raise UsageError for a ``--kvstore`` that cannot work here, without importing MXNet.

    Parameters
    ----------
    args : argparse.Namespace
        With ``kvstore`` and ``gpus``.
    """
    role = os.environ.get('DMLC_ROLE')
    if args.kvstore == 'dist_sync':
        missing = [
            name
            for name in ('DMLC_ROLE', 'DMLC_PS_ROOT_URI', *DMLC_NUMBERS)
            if not os.environ.get(name)
        ]
        if missing:
            raise UsageError(
                f'--kvstore dist_sync needs the variables {", ".join(missing)}: on one machine, '
                'start with python -m bert.cluster --workers 2 -- and this command; for several, '
                'see docs/machines.rst'
            )
        if role not in DMLC_ROLES:
            raise UsageError(f'DMLC_ROLE={role} is not one of {", ".join(DMLC_ROLES)}')
        numbers = {name: os.environ[name] for name in DMLC_NUMBERS}
        numbers.update({name: os.environ.get(name, HEARTBEAT[name]) for name in HEARTBEAT})
        for name, value in numbers.items():
            if not (value.isascii() and value.isdigit() and 0 < int(value) < 65536):
                raise UsageError(f'{name}={value} is not a number from 1 to 65535')
        interval, timeout = (int(numbers[name]) for name in HEARTBEAT)
        if timeout <= 2 * interval:
            raise UsageError(
                f'PS_HEARTBEAT_TIMEOUT={timeout} must be more than twice '
                f'PS_HEARTBEAT_INTERVAL={interval}, or live processes count as lost'
            )
    elif role in ('scheduler', 'server'):
        raise UsageError(f'DMLC_ROLE={role} goes with --kvstore dist_sync')
    if args.kvstore == 'horovod':
        if importlib.util.find_spec('horovod') is None:
            raise UsageError(
                '--kvstore horovod: Horovod is not installed; docs/machines.rst says how to build '
                'it for the installed MXNet'
            )
        if 'HOROVOD_RANK' not in os.environ:
            raise UsageError(
                '--kvstore horovod: start it with horovodrun --gloo -np 2 and this command'
            )
        if args.gpus and len(args.gpus) > 1:
            raise UsageError(
                '--kvstore horovod has a process for each GPU: give --gpu instead of --gpus, and '
                'start as many processes, horovodrun -np, as there are GPUs'
            )
