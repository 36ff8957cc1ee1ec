"""From a profile to the pieces of a pod: exact amounts, no GPU where none was given, mounts as the profile says."""

from typing import Any

import pytest

from tuttilab.scheduler.domain.requests import HdfsRequest, IdleRequest, MountRequest, ProfileRequest
from tuttilab.scheduler.domain.volumes import folder_of
from tuttilab.spawner.pods import Pieces, idle_arguments, merged_env, pieces_of
from tuttilab.spawner.volumes import cephfs_static, volumes_of


def pieces(owner: str = "ann", **given: Any) -> Pieces:
    return pieces_of(
        ProfileRequest(name="p", **given),
        owner=owner,
        job_id="job1",
        node="node-a",
        installation="here",
        image="reg.example/lab:1",
        run_as=None,
        cephfs_claim="cephfs-{name}",
        node_label="kubernetes.io/hostname",
    )


@pytest.mark.feature("N01")
def test_requests_are_limits_and_exact() -> None:
    made = pieces(cpus="1500m", memory="1.3Gi", gpus=2, resources={"rdma/hca": 1})

    wanted = {"cpu": "1500m", "memory": "1395864372", "nvidia.com/gpu": "2", "rdma/hca": "1"}
    assert made.resources == {"requests": wanted, "limits": wanted}


@pytest.mark.feature("N06")
def test_server_without_a_gpu_says_so_in_its_resources_and_its_environment() -> None:
    made = pieces()

    assert made.resources["limits"]["nvidia.com/gpu"] == "0"
    assert made.env == {"NVIDIA_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": ""}


def test_devices_of_a_server_with_gpus_are_the_plugins_to_name() -> None:
    made = pieces(gpus=1, env={"A": "new"})
    there = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": ""}, {"name": "A", "value": "old"}, {"name": "B", "value": "b"}]

    assert merged_env(there, made) == [{"name": "B", "value": "b"}, {"name": "A", "value": "new"}]


def test_pod_goes_to_the_node_that_was_admitted_and_names_its_job() -> None:
    made = pieces()

    assert made.node_selector == {"kubernetes.io/hostname": "node-a"}
    assert made.labels == {
        "tuttilab.io/kind": "notebook",
        "tuttilab.io/job": "job1",
        "tuttilab.io/profile": "p",
        "tuttilab.io/server-of": "here",
    }


@pytest.mark.feature("N01")
def test_mounts_follow_the_profile() -> None:
    profile = ProfileRequest(
        name="p",
        mounts=(
            MountRequest(path="/workspace", cephfs="research", sub_path="users/{owner}"),
            MountRequest(path="/data/market", cephfs="market", mode="r"),
            MountRequest(path="/shared", cephfs="research", mode="r"),
            MountRequest(path="/scratch", claim="scratch"),
        ),
    )

    made = volumes_of(profile, "ann", "cephfs-{name}")

    assert made.volumes == (
        {"name": "tutti-0", "persistentVolumeClaim": {"claimName": "cephfs-research"}},
        {"name": "tutti-1", "persistentVolumeClaim": {"claimName": "cephfs-market"}},
        {"name": "tutti-2", "persistentVolumeClaim": {"claimName": "scratch"}},
    )
    assert made.mounts == (
        {"name": "tutti-0", "mountPath": "/workspace", "readOnly": False, "subPath": "users/ann"},
        {"name": "tutti-1", "mountPath": "/data/market", "readOnly": True},
        {"name": "tutti-0", "mountPath": "/shared", "readOnly": True},
        {"name": "tutti-2", "mountPath": "/scratch", "readOnly": False},
    )


def test_hdfs_configuration_is_read_only_and_tickets_stay_in_memory() -> None:
    made = volumes_of(ProfileRequest(name="p", hdfs=HdfsRequest(config="hadoop-conf", kerberos=True)), "ann", "x")

    assert made.volumes == (
        {"name": "tutti-hdfs", "configMap": {"name": "hadoop-conf"}},
        {"name": "tutti-krb5", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    )
    assert made.mounts == (
        {"name": "tutti-hdfs", "mountPath": "/etc/hadoop/conf", "readOnly": True},
        {"name": "tutti-krb5", "mountPath": "/run/tuttilab/krb5", "readOnly": False},
    )
    assert made.env == {"HADOOP_CONF_DIR": "/etc/hadoop/conf", "KRB5CCNAME": "FILE:/run/tuttilab/krb5/ccache"}
    assert volumes_of(ProfileRequest(name="p", hdfs=HdfsRequest(config="c")), "ann", "x").env == {
        "HADOOP_CONF_DIR": "/etc/hadoop/conf"
    }


@pytest.mark.parametrize(
    ("owner", "folder"),
    [
        ("ann", "ann"),
        ("ann@site.example", "ann%40site.example"),
        ("../bob", "..%2Fbob"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("a/b", "a%2Fb"),
    ],
)
def test_users_folder_is_one_folder(owner: str, folder: str) -> None:
    assert folder_of(owner) == folder


def test_static_volume_is_bound_to_its_claim_and_kept() -> None:
    volume, claim = cephfs_static(
        "research",
        namespace="hub",
        claim="cephfs-research",
        cluster_id="ceph-1",
        fs_name="fs",
        root_path="/volumes/research",
        secret="cephfs-research",
        secret_namespace="ceph",
    )

    assert volume["spec"]["claimRef"] == {"namespace": "hub", "name": "cephfs-research"}
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert volume["spec"]["csi"]["volumeAttributes"] == {
        "clusterID": "ceph-1",
        "fsName": "fs",
        "staticVolume": "true",
        "rootPath": "/volumes/research",
    }
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"] == "hub-research"
    assert claim["spec"]["storageClassName"] == volume["spec"]["storageClassName"] == ""


def test_idle_server_ends_itself() -> None:
    assert idle_arguments(ProfileRequest(name="p", idle=IdleRequest(stop_after="2h"))) == [
        "--MappingKernelManager.cull_idle_timeout=7200",
        "--MappingKernelManager.cull_connected=True",
        "--ServerApp.shutdown_no_activity_timeout=7200",
    ]
    assert idle_arguments(ProfileRequest(name="p")) == []
