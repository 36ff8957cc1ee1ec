"""Why Kubernetes says that a container waits, for whoever reads the pods of jobs and of notebook servers."""

from __future__ import annotations

from typing import Final

BACKS_OFF: Final = ("ErrImagePull", "ImagePullBackOff")
"""An image that could not be pulled and is tried again: it may still come."""
HOPELESS: Final = (
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Why a container waits that waits in vain."""
