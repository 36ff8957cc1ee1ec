"""The error tree: every error the product raises on purpose.

::

    TuttiError                  str(error) is one sentence: what was given, what was expected, what to do
    ├── UserError               the caller can correct it
    │   ├── BadInput            a value, a key, a manifest, an option            400, exit 2
    │   ├── NotFound            no such object, or it belongs to another user    404, exit 2
    │   ├── Refused             rights, quota, size: a retry cannot help         403/409/413, exit 3
    │   │   ├── Forbidden       the token does not allow it                      403
    │   │   ├── AboveMax        asks for more than the queue's max               409
    │   │   ├── NeverFits       fits on no cluster even when all are empty       409
    │   │   ├── TooLarge        more bytes than allowed                          413
    │   │   ├── TooManyJobs     more unfinished jobs than one user may have      409
    │   │   └── Conflict        another body under the same key, wrong phase     409
    │   ├── Unauthenticated     no token, or a wrong one                         401, exit 3
    │   └── EnvironmentProblem  Java, versions, file system: see `doctor`        exit 2
    ├── Unavailable             the service cannot be reached or is not ready    503, exit 4
    │   └── TooMany             more at once than one caller may have            429, exit 4
    │       └── TooFast         more writes a second than one caller may send    429, exit 4
    ├── ClusterError            a cluster failed or refused                      502
    │   ├── ClusterUnreachable  the cluster did not answer: retry later
    │   └── LaunchRefused       the cluster answered that the gang cannot start there
    ├── StoreError              the database                                     507
    │   ├── StoreUnreadable     the service refuses to start and overwrites nothing
    │   ├── StoreUnreachable    no answer from the database; also Unavailable    503, exit 4
    │   ├── StaleEpoch          another replica leads now; also Unavailable      503, exit 4
    │   └── CommitUnknown       commit outcome unknown; also Unavailable         503, exit 4
    └── Bug                     an invariant does not hold: report it
"""

from __future__ import annotations


class TuttiError(Exception):
    """The root of the tree. ``type`` is stable and goes into problem documents (RFC 9457); ``status`` is the HTTP status."""

    type: str = "error"
    status: int = 500
    exit_code: int = 1

    def _render_traceback_(self) -> list[str]:
        """IPython shows this instead of a traceback: the message is what helps; `%tb` still shows the traceback."""
        from tuttilab.scheduler.domain.terminal import clean

        return [clean(f"{type(self).__name__}: {self}")]


class UserError(TuttiError):
    type = "bad-request"
    status = 400
    exit_code = 2


class BadInput(UserError):
    type = "bad-input"


class NotFound(UserError):
    type = "not-found"
    status = 404


class Refused(UserError):
    type = "refused"
    status = 409
    exit_code = 3


class Forbidden(Refused):
    type = "forbidden"
    status = 403


class AboveMax(Refused):
    type = "above-max"


class NeverFits(Refused):
    type = "never-fits"


class TooLarge(Refused):
    type = "too-large"
    status = 413


class TooManyJobs(Refused):
    type = "too-many-jobs"


class Conflict(Refused):
    type = "conflict"


class Unauthenticated(UserError):
    type = "unauthenticated"
    status = 401
    exit_code = 3


class EnvironmentProblem(UserError):
    type = "environment"


class Unavailable(TuttiError):
    type = "unavailable"
    status = 503
    exit_code = 4


class TooMany(Unavailable):
    type = "too-many"
    status = 429


class TooFast(TooMany):
    """``retry_after_s``: the pause after which the request, which had no effect, is taken."""

    type = "too-fast"
    retry_after_s = 1


class ClusterError(TuttiError):
    type = "cluster"
    status = 502


class ClusterUnreachable(ClusterError):
    type = "cluster-unreachable"


class LaunchRefused(ClusterError):
    """``permanent``: a retry cannot help (a wrong image, a command that does not exist)."""

    type = "launch-refused"

    def __init__(self, message: str, *, permanent: bool = False, node: str | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.node = node


class StoreError(TuttiError):
    type = "store"
    status = 507


class StoreUnreadable(StoreError):
    type = "store-unreadable"
    exit_code = 2


class StoreUnreachable(StoreError, Unavailable):
    type = "store-unreachable"
    status = 503
    exit_code = 4


class StaleEpoch(StoreError, Unavailable):
    type = "stale-epoch"
    status = 503
    exit_code = 4


class CommitUnknown(StoreError, Unavailable):
    """Retry with the same idempotency key: a submit that was committed is found under it."""

    type = "commit-unknown"
    status = 503
    exit_code = 4


class Bug(TuttiError):
    type = "bug"
