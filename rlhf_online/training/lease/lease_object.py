"""A Lease object of Kubernetes, over the API, with what a pod's service account gives and no client library.

The token is in no message: what the API server says is searched for it, and nothing else that is raised has seen it.
"""

import http.client
import json
import os
import ssl
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rlhf_online.errors import ConfigError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts what a pod needs to speak with its API server: token, ca.crt, namespace."""
ERROR_CHARS = 500
"""Characters of an error's answer that are shown."""


@dataclass(frozen=True, slots=True)
class LeaseObject:
    """A coordination.k8s.io/v1 Lease, as the service account in the folder `account` sees it."""

    name: str
    namespace: str
    host: str
    port: int
    account: Path

    @classmethod
    def of_pod(cls, name: str, account: Path = ACCOUNT) -> Self:
        """The object `name` in the namespace of this pod. Raises ConfigError outside of a pod."""
        host, port = _variable("KUBERNETES_SERVICE_HOST"), _variable("KUBERNETES_SERVICE_PORT")
        if not port.isdecimal():
            raise ConfigError(f"KUBERNETES_SERVICE_PORT: a port was expected (got {port!r})")
        for file in ("token", "ca.crt"):
            _content(account / file)
        return cls(name, _content(account / "namespace"), host, int(port), account)

    def read(self, timeout_s: float) -> dict[str, Any] | None:
        """The object as it is, None if there is none. Raises OSError, ConfigError."""
        return self._request("GET", f"/{self.name}", None, timeout_s)

    def write(self, found: dict[str, Any] | None, spec: dict[str, Any], timeout_s: float) -> None:
        """Give the object as it was `found`, None for one that is not there, this spec.

        Raises OSError, also if it was changed meanwhile; ConfigError.
        """
        meta = {"name": self.name, "namespace": self.namespace} if found is None else found["metadata"]
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        done = self._request("POST" if found is None else "PUT", f"/{self.name}" if found else "", body, timeout_s)
        if done is None:
            raise ConnectionError(f"lease {self.name} was removed meanwhile, or there is no namespace {self.namespace}")

    def _request(self, method: str, path: str, body: dict | None, timeout_s: float) -> dict[str, Any] | None:
        token = _content(self.account / "token")  # anew each time: Kubernetes replaces it every hour
        if not (token.isascii() and token.isprintable() and " " not in token):
            raise ConfigError(f"{self.account / 'token'} holds no token: see the pod's service account")
        try:
            context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
            # Python 3.13 asks for extensions that the certificates of many clusters do not have.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            with closing(http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=context)) as line:
                line.request(
                    method,
                    f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases{path}",
                    json.dumps(body) if body else None,
                    {"Authorization": f"Bearer {token}", "Accept": "application/json"}
                    | ({"Content-Type": "application/json"} if body else {}),
                )
                response = line.getresponse()
                status, content = response.status, response.read()
                answer = json.loads(content) if status < 300 else None
        except OSError:  # some of TLS are ValueErrors, too
            raise
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(f"the API server's answer is none: {type(error).__name__}") from None
        if status == 404 or isinstance(answer, dict):
            return answer
        said = _message(content).replace(token, "…")[:ERROR_CHARS]
        why = f"the API server says {status} to {method}: {said}"
        if status in (401, 403):
            raise ConfigError(
                f"{why}. Let the pod's service account get, create and update leases.coordination.k8s.io in "
                f"namespace {self.namespace}"
            )
        raise ConnectionError(why)


def _message(content: bytes) -> str:
    """What an error's answer says, in one line: the message of a Status, or what a proxy has written."""
    text = content.decode(errors="replace")
    try:
        text = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())


def _variable(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ConfigError(
            f"the lease on Kubernetes is for a pod: {name} is not set; elsewhere set lease.kind to 'file'"
        ) from None


def _content(path: Path) -> str:
    try:
        if text := path.read_text().strip():
            return text
        raise ConfigError(f"the lease on Kubernetes is for a pod: {path} is empty; see the pod's service account")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"the lease on Kubernetes is for a pod: {path} cannot be read; let the pod mount its service account's "
            "token (automountServiceAccountToken), or set lease.kind to 'file'"
        ) from None
