"""Downloads from servers that are not trusted: however they answer, no more than a limit is taken.

A server can send without end, compress a gigabyte to a megabyte, and say any size. So nothing is
decompressed on the way, the bodies of redirects and errors are not read, and what arrives is
counted. Whether it is the right file is for the caller to check, by its digest.
"""

import functools
import time
import zipfile

from bert.cli.console import progress
from bert.system.errors import ToolkitError
from bert.system.npz import METHODS

ATTEMPTS = 3
BACKOFF = 0.5  # seconds before the second attempt; twice as many before the third
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of an answer
BUSY = (429, 500, 502, 503, 504)  # the statuses that another attempt may not meet
BLOCK = 2**16
# The list of a zip file's members is read at once, in memory, where it takes up more space.
LONGEST_DIRECTORY = 2**20


class DownloadError(ToolkitError):
    """A download that failed, as a sentence that begins with its address.

    Attributes
    ----------
    code : int or None
        The HTTP status, if it is the reason.
    """

    def __init__(self, sentence, code=None):
        super().__init__(sentence)
        self.code = code


def download(address, file, limit, headers=None):
    """Write what a server has at an address to an open, empty binary file.

    What breaks off is requested again from there on.

    Parameters
    ----------
    address : str
    file : binary file
    limit : int
        The most bytes that it may have.
    headers : dict, optional
        Of the request; ``Authorization`` is not sent on to another host by a redirect.

    Raises
    ------
    DownloadError
        If the server cannot be reached, answers with an error, or sends more.
    """
    import requests
    from urllib3.exceptions import HTTPError

    with requests.Session() as session:
        session.hooks['response'].append(_drop_redirect)
        for attempt in range(ATTEMPTS):
            time.sleep(BACKOFF * attempt)
            try:
                if _append(session, address, file, limit, headers or {}):
                    return
                error = DownloadError(f'{address} broke off after {file.tell()} bytes')
            except DownloadError as failure:
                error = failure
                if error.code not in BUSY:
                    break
            # An address in a redirect may be malformed in ways that requests does not expect.
            except (requests.RequestException, HTTPError, ValueError) as failure:
                reason = f'{type(failure).__name__}: {failure}'.split('\n')[0]
                error = DownloadError(f'{address} cannot be fetched ({reason})')
                if isinstance(failure, (ValueError, requests.TooManyRedirects)):
                    break
    raise error


def _drop_redirect(answer, **_):
    """Close a redirect: requests would read all of its body."""
    if answer.is_redirect:
        answer.close()


def _append(session, address, file, limit, headers):
    """Request what is missing in a file, and return whether it arrived as far as one can tell."""
    from urllib3.exceptions import HTTPError

    start = file.tell()
    headers = {**headers, 'Accept-Encoding': 'identity'}
    if start:
        headers['Range'] = f'bytes={start}-'
    with session.get(address, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code not in (200, 206, 416):
            sentence = f'{address} answered {answer.status_code} {answer.reason}'
            raise DownloadError(sentence, answer.status_code)
        resumed = answer.headers.get('Content-Range', '').startswith(f'bytes {start}-')
        if answer.status_code != 206 or not resumed:
            file.seek(0)
            file.truncate()
            if answer.status_code != 200:
                return False  # it is another file than before: start over
        length = answer.headers.get('Content-Length')
        end = file.tell() + int(length) if length else None
        with progress(end, address.rpartition('/')[2], 'B') as bar:
            bar.update(file.tell())
            try:
                for block in answer.raw.stream(BLOCK, decode_content=False):
                    if file.tell() + len(block) > limit:
                        raise DownloadError(f'{address} sends more than {limit} bytes')
                    file.write(block)
                    bar.update(len(block))
            except HTTPError:  # the connection broke off
                return False
    return end is None or file.tell() == end


def read_member(file, name, limit, origin):
    """Unpack one member of a zip file, and nothing else.

    Parameters
    ----------
    file : binary file
    name : str
    limit : int
        The most bytes that it may have, whatever the archive says.
    origin : str
        Where the file comes from, for the error.

    Yields
    ------
    bytes

    Raises
    ------
    ToolkitError
        If the file is not a zip file, is damaged, or has no such member.
    """
    unsound = ToolkitError(f'{origin}: not a zip file with {name} inside')
    total = 0
    try:
        with zipfile.ZipFile(_Stingy(file)) as archive:
            if archive.getinfo(name).compress_type not in METHODS:
                raise unsound
            with archive.open(name) as member:
                for block in iter(functools.partial(member.read, BLOCK), b''):
                    total += len(block)
                    if total > limit:
                        raise unsound
                    yield block
    # A damaged archive can raise almost anything.
    except Exception:
        raise unsound from None


class _Stingy:
    """A binary file that reads no more at once; zipfile finds a longer list of members cut off."""

    def __init__(self, file):
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._read = file.read

    def read(self, size=-1):
        return self._read(min(size, LONGEST_DIRECTORY) if size >= 0 else LONGEST_DIRECTORY)
