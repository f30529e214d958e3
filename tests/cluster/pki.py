"""The keys of a control plane: one authority, two certificates, the service accounts' key and the users' tokens.

Made with the openssl command, since the standard library makes no keys. Users have tokens and not certificates: one
line of a file each.
"""

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.process import run

VALID_DAYS = "3650"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
# Key identifiers in every certificate: Python 3.13 and later refuse a chain without them.
EXTENSIONS = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class User:
    """Whom a token stands for."""

    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("admin", ("system:masters",))


@dataclass(frozen=True)
class Pki:
    """Where the keys of one control plane lie."""

    folder: Path

    def file(self, name: str) -> Path:
        return self.folder / name

    def token(self, user: User) -> str:
        for line in self.file("tokens.csv").read_text().splitlines():
            token, name, *_ = line.split(",")
            if name == user.name:
                return token
        raise KeyError(user.name)

    def ensure(self, *, server_names: Sequence[str], users: Sequence[User]) -> None:
        """Makes all of it, or nothing: a half-made folder never gets the final name."""
        if self.folder.exists():
            return
        unfinished = self.folder.with_name(f"{self.folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        Pki(unfinished)._make(server_names, users)
        unfinished.rename(self.folder)

    def _make(self, server_names: Sequence[str], users: Sequence[User]) -> None:
        self.file("openssl.cnf").write_text(EXTENSIONS.format(names=", ".join(server_names)))
        self._certificate("ca", "/CN=layercast-cluster", "authority")
        self._certificate("apiserver", "/CN=kube-apiserver", "server")
        self._certificate("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "client")
        run(["openssl", "genpkey", "-algorithm", "RSA", "-out", self.file("service-accounts.key")])
        lines = [f'{secrets.token_hex(16)},{user.name},{user.name},"{",".join(user.groups)}"' for user in users]
        self.file("tokens.csv").write_text("\n".join(lines) + "\n")

    def _certificate(self, name: str, subject: str, kind: str) -> None:
        signer: list[str | Path] = (
            [] if kind == "authority" else ["-CA", self.file("ca.crt"), "-CAkey", self.file("ca.key")]
        )
        key_and_certificate: list[str | Path] = ["-keyout", self.file(f"{name}.key"), "-out", self.file(f"{name}.crt")]
        command = ["openssl", "req", "-x509", *NEW_KEY, *key_and_certificate, *signer]
        run([*command, "-days", VALID_DAYS, "-subj", subject, "-config", self.file("openssl.cnf"), "-extensions", kind])
