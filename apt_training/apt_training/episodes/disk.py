"""Room on the disk, claimed before HDF5 writes.

HDF5 cannot close a file that it could not write: the process crashes at its end. So the
space is allocated beforehand, where running out is an ordinary error.
"""

import errno
import os

import h5py

_SPARE = 1 << 20
"""For what HDF5 keeps beside the data [bytes]."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reserve(file: h5py.File, size: int) -> None:
    """Make sure that ``size`` bytes more fit into ``file``, which may be longer than its content then.

    Raises:
        OSError: the disk, the quota or the file is full; its ``filename`` is the file's.
    """
    descriptor = os.open(file.filename, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, file.id.get_filesize() + size + _SPARE)
    except OSError as error:
        # A file system that cannot allocate ahead has to be trusted.
        if error.errno in _NO_ROOM:
            raise OSError(error.errno, f'{os.strerror(error.errno)} while an episode was written',
                          file.filename) from error
    finally:
        os.close(descriptor)
