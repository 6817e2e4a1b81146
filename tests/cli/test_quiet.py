"""--quiet in the programs without a log file: the same files, and not a word about them."""

import golden
import pytest
from conftest import ROOT

import create_pretraining_data
from bert import embed, vocabulary
from bert.convert.__main__ import main as convert
from bert.system.errors import UsageError

TEXT = str(ROOT / 'sample_text.txt')
INSTANCES = ['--input_file', TEXT, '--vocab_file', str(ROOT / 'sample_model' / 'vocab.txt')]
INSTANCES += ['--do_lower_case', '--dupe_factor', '1', '--output_file']


@pytest.mark.parametrize(
    ('main', 'before', 'name'),
    [
        (vocabulary.main, [TEXT, '--size', '300', '--output'], 'vocab.txt'),
        (create_pretraining_data.main, INSTANCES, 'shard.npz'),
        (embed.main, [str(golden.find('hf_encoder')), '--input', TEXT, '--output'], 'vectors.npz'),
    ],
    ids=['vocabulary', 'create_pretraining_data', 'embed'],
)
def test_nothing_is_shown(main, before, name, tmp_path, root_logger, capsys):
    paths = [tmp_path / 'loud' / name, tmp_path / 'quiet' / name]
    for path, more in zip(paths, ([], ['--quiet'])):
        path.parent.mkdir()
        main([*before, str(path), *more])
        out, err = capsys.readouterr()
        assert (out == '', err == '') == (True, bool(more))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_a_conversion_proves_is_a_result(tmp_path, root_logger, capsys):
    convert([str(golden.find('hf_encoder')), str(tmp_path / 'x'), '--to', 'gluon', '--quiet'])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and err == ''


def test_quiet_and_verbose(tmp_path):
    with pytest.raises(UsageError, match='^--quiet and --verbose contradict each other$'):
        create_pretraining_data.main([*INSTANCES, str(tmp_path / 'x'), '--quiet', '--verbose'])
