"""The lease that lets one trainer write.

`file` has the fence that every lease ends in, and the lock of one machine; `kubernetes` the lock of a cluster, which
reaches its API by `lease_object`.
"""

from rlhf_online.training.lease.file import FileLease, Lease, new_holder
from rlhf_online.training.lease.kubernetes import KubernetesLease
from rlhf_online.training.lease.lease_object import LeaseObject

__all__ = ["FileLease", "KubernetesLease", "Lease", "LeaseObject", "new_holder"]
