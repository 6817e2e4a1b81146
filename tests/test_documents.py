"""README.rst and docs/: their form, their tables, their links, and the HTML made of them."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from documents import read, section

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob('*.rst')
    if not any(part.startswith(('.', 'build', 'venv')) for part in path.relative_to(ROOT).parts)
)
# Their directives are those of Sphinx.
OF_SPHINX = ['docs/api.rst', 'docs/index.rst']


@pytest.mark.parametrize('name', [name for name in DOCUMENTS if name not in OF_SPHINX])
def test_documents_are_valid(name):
    """Sphinx's roles, which only docs/ may have, are taken for literals."""
    docutils = pytest.importorskip('docutils.core')
    import io

    text = read(name)
    if name.startswith('docs/'):
        text = re.sub(r':(?:doc|ref|mod|func):`([^`]+)`', r'``\1``', text)
        text = re.sub(r'^\.\. _[\w-]+:\n', '', text, flags=re.M)
    warnings = io.StringIO()
    docutils.publish_doctree(
        text,
        source_path=name,
        settings_overrides={
            'warning_stream': warnings,
            'report_level': 1,
            'syntax_highlight': 'none',
        },
    )
    assert warnings.getvalue() == ''


def test_documents_become_html(tmp_path):
    """Without a warning, such as one of a reference to nothing."""
    pytest.importorskip('sphinx')
    pytest.importorskip('furo')
    flags = ['-q', '-n', '-W', '--keep-going', '-d', str(tmp_path / 'doctrees')]
    ran = subprocess.run(
        [sys.executable, '-m', 'sphinx', *flags, 'docs', str(tmp_path / 'html')],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (ran.returncode, ran.stderr) == (0, '')
    for name in DOCUMENTS:
        if name.startswith('docs/'):
            assert (tmp_path / 'html' / name[len('docs/') :]).with_suffix('.html').is_file()
    api = (tmp_path / 'html' / 'api.html').read_text(encoding='utf8')
    for name in ('gluon.get_model', 'predict.load', 'embed.load', 'model.load_bert'):
        assert f'id="bert.{name}"' in api


def test_links_of_the_readme_lead_to_pages():
    """They lead to each page but the first, which only lists the others."""
    links = set(re.findall(r'<(docs/\w+\.rst)>`__', read('README.rst')))
    pages = {path.relative_to(ROOT).as_posix() for path in ROOT.glob('docs/*.rst')}
    assert links == pages - {'docs/index.rst'}
    listed = re.findall(r'^    (\w+)$', read('docs/index.rst'), re.M)
    assert sorted(f'docs/{name}.rst' for name in listed) == sorted(links)


def test_the_readme_names_places_that_are_there():
    table = section('README.rst', 'The files')
    (rows,) = re.findall(r'^=+ =+\nplace .*\n=+ =+\n((?:.*\n)+?)=+ =+\n', table, re.M)
    places, folder = [], ''
    for row in rows.splitlines():
        for place in row[:42].rstrip().split(', '):
            # After a file, another one of its folder.
            is_beside = folder and place.endswith('.py')
            places.append(folder + place if is_beside else place)
            folder = place[: place.rindex('/') + 1] if '.py' in place and '/' in place else folder
        folder = ''
    assert len(places) > 20 and all((ROOT / place).exists() for place in places), places
    scripts = {path.name for path in ROOT.glob('*.py') if path.name != 'setup.py'}
    rooms = {f'bert/{path.parent.name}/' for path in ROOT.glob('bert/*/__init__.py')}
    assert scripts | rooms <= set(places)


def test_the_table_of_files_has_each_file_once():
    rows = re.findall(
        r'^(?:\d|data) +(\S+) +(.*(?:\n {30}.*)*)',
        section('docs/development.rst', 'The files'),
        re.M,
    )
    places = [place for place, _ in rows]
    listed = [place for place in places if '/' not in place or place.endswith('.py')]
    for place, text in rows:
        if place.startswith('bert/') and place.endswith('/'):
            listed += [f'{place}{name}.py' for name in re.findall(r'``(\w+)``', text)]
    scripts = [path.name for path in ROOT.glob('*.py') if path.name != 'setup.py']
    modules = [path.relative_to(ROOT).as_posix() for path in ROOT.glob('bert/**/*.py')]
    wanted = [name for name in modules if not name.endswith(('__init__.py', '__main__.py'))]
    assert sorted(listed) == sorted([*scripts, *wanted, 'sample_text.txt'])
    assert {'benchmarks/', 'sample_glue/', 'sample_model/'} <= set(places)


def test_the_walks_name_files_and_return_to_none():
    walks = re.findall(
        r'^\*A .*?(?=\n\n)',
        section('docs/development.rst', 'Where to change something'),
        re.M | re.S,
    )
    assert len(walks) == 3
    for walk in walks:
        files = re.findall(r'``([\w/]+(?:\.py|/))``', walk)
        assert len(files) > 8 and len(set(files)) == len(files)
        assert all((ROOT / name).exists() for name in files)
