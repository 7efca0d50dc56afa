"""Prints a tree, one line for each entry: path, type, mode, owner, links, time in nanoseconds, target, attributes, and
the digest of the content. Two trees are the same where their lines are. Left out is what containers do not get: devices,
and attributes that are neither the users' nor capabilities."""

import hashlib
import os
import stat
import sys

root = sys.argv[1]


def line(path):
    found = os.lstat(path)
    kind = stat.S_IFMT(found.st_mode)
    name = os.path.relpath(path, root)
    kept = lambda name: name.startswith("user.") or name == "security.capability"
    names = sorted(filter(kept, os.listxattr(path, follow_symlinks=False)))
    attributes = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in names}
    target = os.readlink(path) if kind == stat.S_IFLNK else ""
    digest, links = "", 0
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        links = found.st_nlink
    return f"{name!r} {found.st_mode:o} {found.st_uid}:{found.st_gid} {links} {found.st_mtime_ns} {target!r} {attributes} {digest}"


paths = [root]
for folder, folders, files in os.walk(root):
    paths += [os.path.join(folder, name) for name in folders + files]
devices = (stat.S_IFCHR, stat.S_IFBLK)
paths = [path for path in paths if stat.S_IFMT(os.lstat(path).st_mode) not in devices]
print("\n".join(sorted(map(line, paths))))
