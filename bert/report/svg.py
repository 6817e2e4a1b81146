"""Put the pictures of matplotlib into the page: colours of its style, words when pointed at."""

import re
from xml.etree import ElementTree

from bert.report.markup import show
from bert.report.style import LIGHT

VARIABLES = {value: f'var(--{name})' for name, value in LIGHT.items() if value.startswith('#')}
VARIABLES[LIGHT['paper']] = 'none'
LEFT_OUT = ('metadata', 'style')  # the address of a vocabulary; a style that holds for all of it


def inline(source, titles, prefix, label):
    """Return an SVG file as an element of the page.

    Its colours become variables of the page's style, and its text takes the page's font. Ids that
    nothing refers to are left out; the others get a prefix, as all figures have the same.

    Parameters
    ----------
    source : bytes
        From :func:`bert.report.curves.render`.
    titles : dict of str to (str or list of str)
        See :class:`bert.report.curves.Picture`.
    prefix : str
        Different for each picture of a page.
    label : str
        What the picture shows, for those who do not see it.
    """
    root = ElementTree.fromstring(source)
    for parent in list(root.iter()):
        parent.tag = parent.tag.rpartition('}')[2]
        for child in list(parent):
            if child.tag.rpartition('}')[2] in LEFT_OUT:
                parent.remove(child)
    for element in list(root.iter()):
        _adapt(element, titles.get(element.get('id')))
    used = {name for element in root.iter() for name in _references(element)}
    for element in root.iter():
        _rename(element, used, prefix)
    view = root.get('viewBox')
    root.attrib.clear()
    root.attrib.update({'viewBox': view, 'role': 'img', 'aria-label': show(label)})
    return re.sub(r'\s*\n\s*', ' ', ElementTree.tostring(root, encoding='unicode'))


def _adapt(element, title):
    """Give an element the colours of the page, and a title."""
    style = [part.strip().partition(':')[::2] for part in element.get('style', '').split(';')]
    kept = []
    for name, value in style:
        value = VARIABLES.get(value.strip(), value.strip())
        if name == 'font':  # of earlier releases of matplotlib: size and families
            name, value = 'font-size', re.search(r'[\d.]+px', value)[0]
        if name and name != 'font-family':
            kept.append(f'{name}: {value}')
    if kept:
        element.set('style', '; '.join(kept))
    for name in list(element.attrib):
        if name.endswith('}href'):
            element.set('href', element.attrib.pop(name))
    if isinstance(title, str):
        _add_title(element, title)
    elif title:
        if element.get('id').startswith('hidden'):
            element.set('class', 'hidden')
        marks = [mark for mark in element.iter() if mark.tag == 'use']
        for mark, text in zip(marks, title):
            _add_title(mark, text)


def _add_title(element, text):
    title = ElementTree.Element('title')
    title.text = show(text)
    element.insert(0, title)


def _references(element):
    """Return the ids that an element refers to."""
    for name, value in element.attrib.items():
        if name == 'href':
            yield value[1:]
        yield from re.findall(r'url\(#([^)]+)\)', value)


def _rename(element, used, prefix):
    """Give an element's id a prefix, and all ids that it refers to, or remove an unused one."""
    for name, value in list(element.attrib.items()):
        if name == 'id' and value not in used:
            del element.attrib['id']
        elif name == 'id':
            element.set('id', prefix + value)
        elif name == 'href':
            element.set('href', f'#{prefix}{value[1:]}')
        else:
            element.set(name, re.sub(r'url\(#', f'url(#{prefix}', value))
