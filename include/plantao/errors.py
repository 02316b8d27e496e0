"""Every way a run can end badly, as an instruction. Pure.

    PlantaoError
    ├── UsageError            the command or the job file is wrong (exit status 2)
    │   └── JobFileError      all mistakes of one job file at once
    ├── NotInitialised        the ledger's tables are missing or old
    ├── DatabaseUnavailable   TRANSIENT: no connection, a time-out, a restart
    ├── DiskFull              TRANSIENT: the rows that wait to be scored found no room on this machine
    ├── ModelStoreUnavailable TRANSIENT: the bucket did not answer, or let nobody in
    ├── ServerRefused         a server that cannot be served: too old, or behind a pooler that shares its sessions
    ├── SourceChanged         the client's table is not what the job or the model expects
    ├── SourceRefused         the client's database answered no
    │   └── OutcomeUnreadable  what really happened cannot be read; predictions go on
    ├── ObjectiveFailed       the SQL of the business metric gave no number
    ├── ModelRefused          a version that is not exactly what was registered, here
    │   ├── ModelMissing
    │   ├── ModelTampered
    │   ├── EnvironmentDiffers
    │   ├── ModelUnreadable
    │   └── GoldenRowsDiffer
    ├── GateClosed            a version that may not become champion, with every reason
    ├── ModelFailed           the model raised on rows that passed the contract
    ├── ChecksFailed          a check that the job blocks has failed; somebody decides
    ├── TooManyRejected       more rows set aside than the job allows
    ├── TargetRefused         the prediction table cannot take the rows
    ├── AlertRefused          the place where alerts go refused us
    ├── AlertUnavailable      TRANSIENT: the place where alerts go did not answer
    ├── WindowBusy            TRANSIENT: somebody else is scoring this window now
    └── Superseded            another attempt replaced this one; this one wrote nothing

*Permanent* errors will happen again on the next try, so Airflow must not retry them.
*Transient* ones may pass. Until `load` commits nothing is visible, so every one of these
errors means: nothing was written but the failed attempt in `plantao.runs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class PlantaoError(Exception):
    """Something stopped Plantão. The message says what, whether anything was written, and what to do next."""

    permanent: ClassVar[bool] = True
    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, next_step: str = "", step: str = "") -> None:
        super().__init__(what, next_step, step)
        self.what = what
        self.next_step = next_step
        self.step = step

    def __str__(self) -> str:
        where = f"{self.step}: " if self.step else ""
        advice = f" Next: {self.next_step}" if self.next_step else ""
        return f"{where}{self.what}{advice}"


def described(error: Exception) -> str:
    """Return an error in words: one of ours says all itself, any other gets its class in front."""
    return str(error) if isinstance(error, PlantaoError) else f"unexpected {type(error).__name__}: {error}"


class UsageError(PlantaoError):
    """The command was given something it cannot use. Nothing was started and nothing was written."""

    exit_status = 2


class JobFileError(UsageError):
    """A job file has mistakes. All of them are listed, and the job does not run until they are mended."""

    def __init__(self, name: str, complaints: Sequence[str]) -> None:
        self.name = name
        self.complaints = tuple(complaints)
        count = len(self.complaints)
        mistakes = "1 mistake" if count == 1 else f"{count} mistakes"
        super().__init__("\n".join([f"job file {name} has {mistakes}:", *(f"  {line}" for line in complaints)]))

    def __reduce__(self) -> tuple[type[JobFileError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.name, self.complaints)


class NotInitialised(PlantaoError):
    """The database has no ledger, or an older one. `plantao init` creates and upgrades it."""


class DatabaseUnavailable(PlantaoError):
    """The database did not answer, or ended the session. A retry can help, and the ledger keeps it harmless."""

    permanent = False


class ServerRefused(PlantaoError):
    """The server cannot be served: it is too old, or a pooler in between shares its sessions. Connect elsewhere."""


class DiskFull(PlantaoError):
    """The rows that wait to be scored found no room on this machine. Make room; a retry reads them again."""

    permanent = False


class ModelStoreUnavailable(PlantaoError):
    """The model store did not answer, or not to us. A retry can help when it was the network, or a key was renewed."""

    permanent = False


class SourceChanged(PlantaoError):
    """The source is not what the job and the model were made for. The client or the job's owner must act."""


class SourceRefused(PlantaoError):
    """The source database refused the query. A right is missing or the query is wrong, and a retry cannot help."""


class OutcomeUnreadable(SourceRefused):
    """The outcomes (or actions) of a job cannot be read. Predictions go on, and what was tallied stays as it was."""


class ObjectiveFailed(PlantaoError):
    """The SQL of the business metric gave no number. The other metrics do not depend on it; mend it in the job file."""


class ModelRefused(PlantaoError):
    """The model version may not run here. No row was read, and predictions stay as they were."""


class ModelMissing(ModelRefused):
    """The job names a model or version that is not registered. Register or promote one first."""


class ModelTampered(ModelRefused):
    """The file's SHA-256 is not the registered one. It was not opened, because opening a model file runs its code."""


class EnvironmentDiffers(ModelRefused):
    """The libraries here are not those of the training. Install the lock file, or register a model trained here."""


class ModelUnreadable(ModelRefused):
    """The model's bytes are the registered ones but could not be loaded. Usually a class or library is missing here."""


class GoldenRowsDiffer(ModelRefused):
    """The model answers the golden rows differently here than at registration. Its predictions cannot be trusted."""


class GateClosed(PlantaoError):
    """A version may not become champion. Every reason is listed, and the champion stays what it is."""


class ModelFailed(PlantaoError):
    """The model raised on rows that passed the contract. The data scientist must look at the rows that are named."""


class TooManyRejected(PlantaoError):
    """More rows had to be set aside than `at_most_rejected` allows. Nothing became visible; look at the reasons."""


class ChecksFailed(PlantaoError):
    """A check that the job blocks has failed, so nothing became visible. Look at the rows, then accept them or not."""


class TargetRefused(PlantaoError):
    """The prediction table cannot take the rows. Its columns or the rights on it must be mended."""


class AlertRefused(PlantaoError):
    """The place where alerts go refused the token or the message. Somebody must mend the connection to it."""

    def __init__(
        self, what: str, next_step: str = "", step: str = "", *, reason: str = "", of: str = "message"
    ) -> None:
        super().__init__(what, next_step, step)
        self.reason = reason
        """What was said, in one word, such as `token_revoked`."""
        self.of = of
        """What was refused: the token, the channel or the message."""


class AlertUnavailable(PlantaoError):
    """The place where alerts go did not answer, or asked to be left alone. What waits is sent later."""

    permanent = False

    def __init__(
        self, what: str, next_step: str = "", step: str = "", *, retry_after: float | None = None, in_doubt: bool = True
    ) -> None:
        super().__init__(what, next_step, step)
        self.retry_after = retry_after
        """For how many seconds it asked to be left alone; None when it did not say."""
        self.in_doubt = in_doubt
        """Whether the message may have been taken all the same."""


class WindowBusy(PlantaoError):
    """Another live attempt holds this window. Wait for it: a later retry finds the rows already scored."""

    permanent = False


class Superseded(PlantaoError):
    """A newer attempt took this window over while this one was away. This one rolled back and wrote nothing."""
