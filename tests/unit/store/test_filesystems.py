"""SQLite's locks hold on local disks only, so the store asks where a file would lie."""

from pathlib import Path

import pytest

from tuttilab.scheduler.store.filesystems import is_shared, kind_in

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/ana/local xfs rw 0 0
user@host: /home/ana/remote fuse.sshfs rw 0 0
mons:/ /mnt/with\\040space ceph rw 0 0
tmpfs /over tmpfs rw 0 0
share /over 9p rw 0 0
broken line
""".splitlines()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/state.db", "ext4"),
        ("/home/ana/state.db", "nfs4"),
        ("/homes/state.db", "ext4"),
        ("/home/ana/local/state.db", "xfs"),
        ("/home/ana/remote/x/state.db", "fuse.sshfs"),
        ("/mnt/with space/state.db", "ceph"),
        ("/over/state.db", "9p"),
    ],
)
def test_deepest_and_latest_mount_decides(path: str, kind: str) -> None:
    assert kind_in(MOUNTS, Path(path)) == kind


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "ceph", "fuse", "fuse.sshfs", "fuse.glusterfs", "fuseblk", "9p", "cifs", "smb3", "lustre"]
)
def test_shared_file_system_is_recognised(kind: str) -> None:
    assert is_shared(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", ""])
def test_local_file_system_is_not(kind: str) -> None:
    assert not is_shared(kind)
