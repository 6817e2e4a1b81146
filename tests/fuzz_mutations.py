"""Changes to files of known formats, so that a fuzzer gets past checksums and parsers.

Each function takes the bytes of a file and a ``random.Random`` and returns the bytes of another
file. A file that cannot be parsed is changed as plain bytes.
"""

import ast
import io
import json
import struct
import warnings
import zipfile

NUMBERS = (-1, 0, 1, 2, 7, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**60)
TEXTS = (
    *(
        '',
        ' ',
        '\0',
        '\r',
        '\t',
        '\n',
        '"',
        '\\',
        '\ufeff',
        '\u2028',
        '\u202e',
        '\x1b[2J',
        '٣',
        'é',
    ),
    *('../../x', '/etc/passwd', 'a' * 5000, '9' * 5000, '1e999', '-1e39', 'NaN', '1_0', '[UNK]'),
    *('[', '{', '(' * 300, '[' * 2000, '1+' * 3000, '%s', 'null', '-0', '\U0001f600'),
)
VALUES = (
    *(None, True, False, [], {}, '', 0, -1, 1, 2, 0.5, 1e308, float('nan'), float('inf')),
    *(2**31, 2**63, 10**400, 'NaN', '0', '../../x', '/x', 'a/b', '\0', 'a' * 3000, '\x1b[2J'),
    *([[[[[]]]]], {'a': {}}, [1, 'a', None], {'0': 'a', '1': 'b'}, 'F32', 'BF16', 'F16'),
)
# Texts that json.dumps does not write.
RAW_JSON = ('"\\ud800"', '9' * 5000, '1e999', '[' * 3000 + ']' * 3000, '{"a":' * 3000, '-', '')
SHAPES = (
    (),
    (0,),
    (1,),
    (-1,),
    (2**40,),
    (2**32, 2**32),
    (2**62, 4),
    (1,) * 40,
    (2**40, 0),
    (3, 3),
)
DTYPES = (
    *('<f4', '<i8', '|u1', '|b1', '|O', '<U9', '|S0', '<U536870911', '|V1000000000', '<M8[s]'),
    *('>i4', '<f2', '<c16', '9' * 60 + 'i4', '(3,)i4', 'i4,i4', '(', [('a', '<i4')], [('a', '|O')]),
)


def plain(data, rng):
    """Flip, remove, repeat, insert, overwrite or cut off bytes."""
    data = bytearray(data)
    place = rng.randrange(len(data) + 1)
    length = min(rng.choice((1, 1, 2, 4, 8, 40)), len(data) - place)
    action = rng.randrange(6)
    if action == 0 and length:
        data[place] ^= 1 << rng.randrange(8)
    elif action == 1:
        del data[place : place + length]
    elif action == 2:
        data[place:place] = data[place : place + length] * rng.choice((1, 2, 50))
    elif action == 3:
        data[place:place] = rng.choice(TEXTS).encode()
    elif action == 4:
        form = rng.choice('<i <q <I <Q >I'.split())
        number = struct.pack(form, _fit(rng.choice(NUMBERS), form))
        place -= place % rng.choice((1, 4))
        data[place : place + len(number)] = number
    else:
        del data[place:]
    return bytes(data)


def _fit(number, form):
    size = 8 * struct.calcsize(form)
    number %= 2**size
    return number - 2**size if form[-1].islower() and number >= 2 ** (size - 1) else number


def text(data, rng):
    """Change the lines and cells of a text, or its bytes."""
    lines = data.split(b'\n')
    place = rng.randrange(len(lines))
    action = rng.randrange(5)
    if action == 0:
        lines.insert(place, rng.choice(lines))
    elif action == 1:
        del lines[place]
    elif action == 2:
        separator = rng.choice((b'\t', b',', b' ', b':', b'='))
        cells = lines[place].split(separator)
        cells[rng.randrange(len(cells))] = rng.choice(TEXTS).encode()
        lines[place] = separator.join(cells)
    elif action == 3:
        lines[place] = json_tree(lines[place], rng)
    else:
        return plain(data, rng)
    return b'\n'.join(lines)


def json_tree(data, rng):
    """Replace, remove or add a value somewhere in a JSON text."""
    places = []

    def visit(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)) and len(places) < 3000:
                visit(node[key])

    try:
        root = [json.loads(data)]
        visit(root)  # Python 3.13 reads deeper texts than this can visit
    except (ValueError, RecursionError):
        return plain(data, rng)
    node, key = rng.choice(places)
    action = rng.randrange(4)
    mark = None
    if action == 0:
        mark = '"<here>"'
        node[key] = '<here>'
    elif action == 1 and node is not root:
        del node[key]
    elif action == 2 and isinstance(node, dict):
        node[rng.choice(TEXTS)] = node[key]
    else:
        node[key] = rng.choice((*VALUES, *(number for number in NUMBERS)))
    written = json.dumps(root[0], ensure_ascii=rng.random() < 0.5)
    if mark:
        written = written.replace(mark, rng.choice(RAW_JSON), 1)
    return written.encode('utf8', 'surrogatepass')


def npy(data, rng):
    """Change the header or the bytes of a ``.npy`` file."""
    try:
        (length,) = struct.unpack_from('<H', data, 8)
        header = ast.literal_eval(data[10 : 10 + length].decode('latin1'))
        body = data[10 + length :]
    except (ValueError, SyntaxError, struct.error, MemoryError, RecursionError):
        return plain(data, rng)
    action = rng.randrange(5)
    if action == 0:
        header['shape'] = rng.choice(SHAPES)
    elif action == 1:
        header['descr'] = rng.choice(DTYPES)
    elif action == 2:
        header['shape'], header['descr'] = rng.choice(SHAPES), rng.choice(DTYPES)
    elif action == 3:
        body = json_tree(body, rng) if header.get('descr') == '|u1' else plain(body, rng)
        header['shape'] = (len(body),) if header.get('descr') == '|u1' else header['shape']
    elif isinstance(header.get('descr'), str) and header['descr'].startswith('<U'):
        written = body.decode('utf-32-le', 'replace').encode('utf8', 'replace')
        written = json_tree(written, rng).decode('utf8', 'replace')
        body, header['descr'] = written.encode('utf-32-le'), f'<U{max(1, len(written))}'
    written = (repr(header) + '\n').encode('latin1', 'replace')
    return data[:8] + struct.pack('<H', min(len(written), 65535)) + written + body


def zipped(data, rng):
    """Change a member of a zip file, its name or its compression, or the bytes of the file."""
    if rng.random() < 0.2:
        return plain(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > 2**24:
                return plain(data, rng)
            members = [(info, archive.read(info)) for info in archive.infolist()]
    except Exception:  # zipfile raises many kinds
        return plain(data, rng)
    if not members:
        return plain(data, rng)
    place = rng.randrange(len(members))
    info, content = members[place]
    action = rng.randrange(8)
    if action == 0:
        del members[place]
    elif action == 1:
        members.append(members[place])
    elif action == 2:
        info.filename = rng.choice(
            ('../../x', '/x', 'a/../../x', 'C:\\x', '\\\\host\\x', 'a/' * 1500 + 'x', 'x' * 300)
            + ('.', '', 'a/', info.filename + '/x', info.filename + '/', info.filename.upper())
        )
    elif action == 3:
        info.compress_type = rng.choice((0, 8, 12, 14))
        info.external_attr = rng.choice((0, 0o120777 << 16, 0o020666 << 16, 0o100644 << 16))
    elif action == 4 and rng.random() < 0.2:
        members[place] = (info, bytes(rng.choice((10**5, 10**7))))
    else:
        change = npy if content.startswith(b'\x93NUMPY') else text
        members[place] = (info, change(content, rng))
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, 'w') as archive:
        warnings.simplefilter('ignore')  # about two members with the same name
        for info, content in members:
            member = zipfile.ZipInfo(info.filename)
            member.compress_type, member.external_attr = info.compress_type, info.external_attr
            archive.writestr(member, content)
    return out.getvalue()


def safetensors(data, rng):
    """Change the header of a safetensors file as JSON, its length, or the bytes."""
    if len(data) < 8 or rng.random() < 0.2:
        return plain(data, rng)
    (length,) = struct.unpack_from('<Q', data)
    header, body = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.1:
        return struct.pack('<Q', _fit(rng.choice(NUMBERS), '<Q')) + header + body
    header = json_tree(header, rng)
    return struct.pack('<Q', len(header)) + header + body


def protobuf(data, rng):
    """Change a field of a protocol buffer, or of one nested in it, or the bytes."""
    fields = _fields(data)
    if not fields or rng.random() < 0.1:
        return plain(data, rng)
    place = rng.randrange(len(fields))
    number, kind, value = fields[place]
    action = rng.randrange(6)
    if action == 0:
        del fields[place]
    elif action == 1:
        fields.insert(rng.randrange(len(fields) + 1), fields[place])
    elif kind == 2:
        fields[place] = (
            number,
            kind,
            protobuf(value, rng) if value else rng.choice(TEXTS).encode(),
        )
    elif kind == 0:
        fields[place] = (number, kind, rng.choice(NUMBERS) % 2**64)
    else:
        values = (0.0, -1.0, 1e30, float('inf'), float('nan'))
        fields[place] = (
            (number, kind, struct.pack('<f', rng.choice(values)))
            if kind == 5
            else (number, kind, plain(value, rng)[:8].ljust(8, b'\0'))
        )
    return b''.join(_format_field(*field) for field in fields)


def _fields(data):
    """Return the fields as (number, kind, value), or None."""
    fields, place = [], 0
    try:
        while place < len(data):
            tag, place = _varint(data, place)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                value, place = _varint(data, place)
            else:
                size = {1: 8, 5: 4}.get(kind)
                if kind == 2:
                    size, place = _varint(data, place)
                if size is None or not number or place + size > len(data):
                    return None
                value, place = data[place : place + size], place + size
            fields.append((number, kind, value))
    except IndexError:
        return None
    return fields


def _varint(data, place):
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _format_varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _format_field(number, kind, value):
    head = _format_varint(number << 3 | kind)
    if kind == 0:
        return head + _format_varint(value)
    return head + (_format_varint(len(value)) if kind == 2 else b'') + value
