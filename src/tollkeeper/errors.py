"""Every exception Tollkeeper raises on purpose, in one tree.

::

    TollkeeperError                never raised itself
    ├── RequestError               the caller's input cannot be served; nothing was charged
    │   ├── InputError             an input item has the wrong type, shape, size or content
    │   ├── ModelNotFoundError     the named model is not served here
    │   ├── ProofError             a proof of work does not hold; its code says why
    │   └── TooLargeError          the request body is over the limit
    ├── RefusalError               the input is fine, but this account may not have the answer now
    │   ├── AuthenticationError    no key, or a key that is unknown or revoked
    │   ├── SuspendedError         the operator suspended the tenant
    │   ├── InputRefused           an input that is never answered, whoever asks
    │   ├── ChallengeRequired      a proof of work has to come first; carries the challenge
    │   ├── ThrottledError         slow down; carries the seconds to wait
    │   └── BudgetExhausted        a hard query budget is spent
    ├── EncoderError               the encoder failed or answered garbage
    ├── LedgerError                the store failed; nothing was answered
    │   ├── ConflictError          another writer came first: read again and try again
    │   └── SpentError             the store of used proofs failed; what needs none is answered
    ├── DetectorError              a detector met queries or state that it was not fitted for
    ├── GuardError                 guard state and guard settings do not fit each other
    ├── CalibrationError           a calibration sample is unusable
    ├── ConfigurationError         settings are wrong; raised at start, never per request
    │   └── UnknownNameError       an operator named a tenant or key that does not exist
    ├── AuditRefused               an audit cannot be done as asked; says nothing about guilt
    │   └── EvidenceError          a commitment, record or signature does not hold
    └── DataError                  a data set cannot be had or does not match its checksum

A message says what was expected, what came and what to do. It may be shown to
clients, so it never holds coverage, noise scale, profile or transform.
Only ``gateway/wire.py`` turns these into HTTP statuses.
"""

from __future__ import annotations


class TollkeeperError(Exception):
    """Base of all errors raised by Tollkeeper; catch this, never raise it."""


class RequestError(TollkeeperError):
    """The caller's request cannot be served as it is; nothing was charged."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """Keep the request field (`param`) and machine-readable `code` beside the message."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class InputError(RequestError, ValueError):
    """An input item has the wrong type, shape, size or content."""


class ModelNotFoundError(RequestError):
    """The request names a model that is not served here."""


class ProofError(RequestError):
    """A proof of work is malformed, forged, outdated, of something else or no solution."""


class TooLargeError(RequestError):
    """The request body is over the configured limit."""


class RefusalError(TollkeeperError):
    """The request is well-formed, but this account may not have the answer now."""


class AuthenticationError(RefusalError):
    """No API key came, or one that is unknown or revoked."""


class SuspendedError(RefusalError):
    """The operator suspended the tenant."""


class InputRefused(RefusalError):  # noqa: N818 - a decision, not a failure
    """A detector finds an input too suspicious to answer, whoever asks."""


class ChallengeRequired(RefusalError):  # noqa: N818 - a price, not a failure
    """A proof of work has to come with this request.

    Attributes:
        challenge: value of the `WWW-Authenticate` header.
        code: `challenge_required`, or why the proof that came is not enough.
    """

    def __init__(self, message: str, *, challenge: str, code: str = "challenge_required") -> None:
        """Keep the challenge and the code beside the message."""
        super().__init__(message)
        self.challenge = challenge
        self.code = code


class ThrottledError(RefusalError):
    """The account must slow down.

    Attributes:
        retry_after_s: seconds after which the same request may succeed.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        """Keep the waiting time beside the message."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BudgetExhausted(RefusalError):  # noqa: N818 - the name says it
    """A hard query budget is spent; retrying does not help."""


class EncoderError(TollkeeperError):
    """The encoder failed, timed out or answered with non-finite or misshapen embeddings."""


class LedgerError(TollkeeperError):
    """The store failed or is damaged; nothing may be answered without it."""


class ConflictError(LedgerError):
    """Another writer committed first.

    Attributes:
        expected: the version the caller had read.
        found: the version in the store.
    """

    def __init__(self, pool: str, *, expected: int, found: int) -> None:
        """Name the pool and both versions."""
        super().__init__(
            f"pool {pool!r}: expected version {expected}, found {found}; read again and retry"
        )
        self.expected = expected
        self.found = found


class SpentError(LedgerError):
    """The store of used proofs and allowances failed; what needs neither can be answered."""


class DetectorError(TollkeeperError):
    """A detector met queries, answers or state that it was not fitted for."""


class GuardError(TollkeeperError):
    """Guard state (sketch, key, embeddings) does not fit the guard's settings."""


class CalibrationError(TollkeeperError):
    """A calibration sample is too small, constant, non-finite or of the wrong width."""


class ConfigurationError(TollkeeperError):
    """Settings are wrong; raised when they are read, never while serving."""


class UnknownNameError(ConfigurationError):
    """An operator named a tenant or a key that does not exist."""


class AuditRefused(TollkeeperError):  # noqa: N818 - a decision, not a failure
    """An audit's samples, controls or suspect cannot carry it; nothing is said about guilt."""


class EvidenceError(AuditRefused):
    """A commitment, a record or a signature does not hold: something was changed or is missing."""


class DataError(TollkeeperError):
    """A data set is missing or does not match its checksum."""
