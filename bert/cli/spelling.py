"""Shortened flags, spelled out where a command line belongs to several parsers."""


def spell_out(words, flags, others, error):
    """Spell out the shortened flags of a command line whose flags belong to several parsers.

    >>> spell_out(['--ep', '3', '--lr=1'], ['--epochs', '--lr'], ['--early'], print)
    ['--epochs', '3', '--lr=1']

    Parameters
    ----------
    words : list of str
    flags : list of str
        What a word may be short for.
    others : list of str
        What it may be short for if it is not short for any of these.
    error : function
        Called with the sentence about a word that is short for several flags.

    Returns
    -------
    list of str
    """
    spelled = []
    for word in words:
        name, equals, value = word.partition('=')
        if name.startswith('--') and name not in ('--', *flags, *others):
            found = [flag for flag in flags if flag.startswith(name)]
            found = found or [flag for flag in others if flag.startswith(name)]
            if len(found) > 1:
                error(f'ambiguous option: {word} could match {", ".join(found)}')
            name = found[0] if found else name
        spelled.append(f'{name}{equals}{value}')
    return spelled
