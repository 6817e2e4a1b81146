"""The exceptions that end a program with a sentence."""

from bert.system import errors


def test_a_quotation_becomes_one_line_of_limited_length():
    error = errors.ToolkitError('x: the label \x1b[2J\n\x00é\u2028 is wrong')
    assert str(error) == 'x: the label \\x1b[2J\\n\\x00é\\u2028 is wrong'
    for letter in ('a', '\x00'):  # the latter is written as four characters
        sentence = str(errors.UsageError('begin ' + letter * 10**6 + ' end'))
        assert len(sentence) < 2100
        assert sentence.startswith('begin ') and sentence.endswith(' end')
