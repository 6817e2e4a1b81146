"""The packages that this one needs: whether they are installed, and fit this system and each other.

It is asked before they are imported, as one that does not fit prints pages or ends the process.
"""

import ctypes
import functools
import platform
import sys
from importlib import metadata

from bert.system.errors import ToolkitError

PROJECT = 'mxnet-bert-toolkit'
# What MXNet's build for Linux on aarch64 links against and does not bring along.
ARM_LIBRARIES = ('libarmpl_lp64_mp.so', 'libamath.so', 'libastring.so')
# The bounds that the metadata of earlier releases lack: these were compiled for numpy 1.
UNSAID = {'scikit-learn<1.4.2': 'numpy<2'}


@functools.lru_cache(maxsize=None)
def installed_wheels():
    """Return the names of the installed distributions that provide ``mxnet``, sorted."""
    names = (distribution.metadata['Name'] for distribution in metadata.distributions())
    names = {name.lower().replace('_', '-') for name in names if name}
    return sorted(name for name in names - {PROJECT} if name.startswith('mxnet'))


def check_mxnet():
    """Raise ToolkitError, with what to install, if MXNet or what it needs cannot be imported."""
    wheels = installed_wheels()
    if not wheels:
        raise ToolkitError(explain_missing(platform.system(), platform.machine()))
    if len(wheels) > 1:
        raise ToolkitError(
            f'{" and ".join(wheels)} are both installed, and overwrite each other: '
            f'pip uninstall {" ".join(wheels)}, then install only one of them'
        )
    if wheels != ['mxnet']:
        try:
            ctypes.CDLL('libcuda.so.1')
        except OSError:
            raise ToolkitError(
                f'{wheels[0]} needs the NVIDIA driver (libcuda.so.1 was not found), on the CPU '
                f'too: install it, or pip uninstall {wheels[0]} and {install_command("mxnet")}'
            ) from None
    if (platform.system(), platform.machine()) == ('Linux', 'aarch64'):
        check_arm_libraries()
    check_fit('scipy', 'scikit-learn')


def explain_missing(system, machine):
    """Return the sentence that says how to get MXNet on a system, as :mod:`platform` names it."""
    if system == 'Windows':
        return 'MXNet 1.9.1 was not released for Windows: use the Windows Subsystem for Linux (WSL)'
    if system == 'Darwin' and machine != 'x86_64':
        return (
            "MXNet 1.9.1 was released for x86-64 on macOS, not for Apple's own processors: "
            'use Linux on x86-64'
        )
    cpu, gpu = install_command('mxnet'), install_command('mxnet-cu112')
    where = "in the toolkit's folder"
    if sys.version_info >= (3, 13):
        sentence = f"MXNet is not installed: pip install '.[cpu]' {where}, then {cpu}"
        others = f"pip install '.[cu112]', then {gpu}"
    else:
        sentence = f"MXNet is not installed: pip install '.[cpu]' {where}"
        others = "pip install '.[cu112]'"
    return sentence if system == 'Darwin' else f'{sentence}; for NVIDIA GPUs, {others}'


def install_command(wheel):
    """Return the command that installs a build of MXNet into this Python.

    MXNet's metadata ask for numpy 1, which has no release for Python 3.13 and later.
    """
    if sys.version_info >= (3, 13):
        return f'pip install --no-deps {wheel}==1.9.1'
    return f"pip install '{wheel}==1.9.1'"


def check_arm_libraries():
    """Raise ToolkitError unless the libraries of Arm are there that MXNet links against."""
    missing = []
    for name in ARM_LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    if missing:
        raise ToolkitError(
            f"MXNet's build for aarch64 needs {', '.join(missing)}: install Arm Performance "
            'Libraries and name their lib folder in LD_LIBRARY_PATH, or use Linux on x86-64'
        )


def check_fit(*names):
    """Raise ToolkitError if one of the installed distributions does not fit another.

    Parameters
    ----------
    *names : str
        They are compared by what they and this project ask of each other and of numpy. One that is
        missing is left to the import, whose error says so.
    """
    from packaging.utils import canonicalize_name

    names = ('numpy', *names)
    for asking in (PROJECT, *names):
        for requirement in _requirements(asking):
            name = canonicalize_name(requirement.name)
            version = _installed(metadata.version, name) if name in names else None
            if version and not _fits(version, requirement.specifier):
                advice = '' if asking == PROJECT else f'pip install --upgrade {asking}, or '
                bounds = ','.join(sorted(map(str, requirement.specifier)))
                raise ToolkitError(
                    f'{name} {version} does not fit {asking} '
                    f"{metadata.version(asking)}: {advice}pip install '{name}{bounds}'"
                )


def _requirements(asking):
    """Return what an installed distribution asks of others, none if it is missing."""
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in _installed(metadata.requires, asking) or ()]
    # Of the extras, only this project's own name packages that are compared.
    extra = {'extra': 'onnx' if asking == PROJECT else ''}
    requirements = [r for r in requirements if not r.marker or r.marker.evaluate(extra)]
    version = _installed(metadata.version, asking)
    for releases, bound in UNSAID.items():
        those = Requirement(releases)
        if version and those.name == asking and those.specifier.contains(version, prereleases=True):
            requirements.append(Requirement(bound))
    return requirements


def _installed(question, name):
    """Return what :mod:`importlib.metadata` says of a distribution, or None if it is missing."""
    try:
        return question(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(version, specifiers):
    """Return whether a release will do.

    An upper bound within its major version is a precaution against releases to come.
    """
    from packaging.version import Version

    version = Version(version)
    major = Version(str(version.major))
    return all(
        specifier.contains(version, prereleases=True)
        or (specifier.operator in ('<', '<=') and Version(specifier.version) > major)
        for specifier in specifiers
    )
