"""Allocation of disk space before HDF5 writes.

HDF5 crashes the process if it cannot write a file that it closes. With space allocated beforehand, a full disk is an
ordinary error.
"""

import errno
import os

import h5py

_SPARE = 1 << 20
"""Allowance for the metadata that HDF5 writes beside the data [B]."""
# Errors of a full disk, quota or file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reserve_space(file: h5py.File, size: int) -> None:
    """Allocate ``size`` more bytes for ``file``, which may be longer than its content then.

    Raises:
        OSError: the disk, the quota or the file is full; its ``filename`` is the file's.
    """
    descriptor = os.open(file.filename, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, file.id.get_filesize() + size + _SPARE)
    except OSError as error:
        # Some file systems cannot allocate ahead; other errors are ignored.
        if error.errno in _NO_ROOM:
            raise OSError(error.errno, f'{os.strerror(error.errno)} while writing an episode',
                          file.filename) from error
    finally:
        os.close(descriptor)
