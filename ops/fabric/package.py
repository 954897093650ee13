# SPDX-License-Identifier: Apache-2.0
"""The chaincode package: which contract the organisations agree to run, in bytes that everybody makes alike.

A package of chaincode as a service holds no code, and its id would not bind any. Ours holds the digest of the
contract's source: another source is another id, which a majority of the organisations must approve, and the server
refuses to start on a source with another digest. The address of the server is a template that each organisation's
peer fills in (builder), so that the package, and its id, are the same everywhere.
"""

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from pathlib import Path

from chaincode import fabric_source
from identity.errors import UsageError
from ops.fabric.plan import CHAINCODE

HERE = Path(__file__).resolve().parents[2]
_BLOCK = 0xFFFF  # the most that a stored block of DEFLATE holds
_TLS = {"root_cert": "{{.root_cert}}", "client_cert": "{{.client_cert}}", "client_key": "{{.client_key}}"}


def source_digest(root: str = "") -> str:
    """The digest (SHA-256, hex) of the contract's source in an installation of this program, in this one for "".

    Raises:
        UsageError: ``fabric-contract``: there is no contract for Fabric in that folder.
    """
    try:
        return fabric_source.source_digest(Path(root) if root else HERE)
    except (OSError, SyntaxError) as error:
        raise UsageError("fabric-contract", f"{root} has no contract that a Fabric network can run: {error}") from error


def make(source: str, *, tls: bool) -> bytes:
    """The package of the contract with this source digest; ``tls`` where servers and peers are on different machines."""
    code = _archive({"connection.json": connection(tls=tls), "source.sha256": f"{source}\n".encode()})
    return _archive({"metadata.json": _json({"type": "ccaas", "label": CHAINCODE}), "code.tar.gz": code})


def connection(*, tls: bool) -> bytes:
    """The package's connection.json: how a peer reaches its chaincode server, as a template."""
    value: dict[str, object] = {"address": "{{.address}}", "dial_timeout": "10s", "tls_required": tls}
    return _json(value | {"client_auth_required": True, **_TLS} if tls else value)


def package_id(package: bytes) -> str:
    """The id that peers give to a package."""
    return f"{CHAINCODE}:{hashlib.sha256(package).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def _archive(files: dict[str, bytes]) -> bytes:
    """A tar.gz that is a function of its files' names and bytes: no time, no owner, no compressor's choices."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return stored_gzip(buffer.getvalue())


def stored_gzip(data: bytes) -> bytes:
    """The bytes in gzip's form (RFC 1952), uncompressed: two versions of zlib may compress differently."""
    body = bytearray(b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff")
    for start in range(0, max(len(data), 1), _BLOCK):
        part = data[start : start + _BLOCK]
        final = start + _BLOCK >= len(data)
        body += bytes([final]) + len(part).to_bytes(2, "little") + (len(part) ^ 0xFFFF).to_bytes(2, "little") + part
    body += zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    if gzip.decompress(bytes(body)) != data:
        raise AssertionError("what was packed does not unpack")
    return bytes(body)


def steps(file: str, package: bytes, source: str, *, tls: bool) -> str:
    """The page for operators of an existing network: what to do with the package."""
    text = (HERE / "ops" / "fabric" / "operators.md").read_text(encoding="utf-8")
    options = " --tls-certificate server.pem --tls-key server.key --client-ca peers-tls-ca.pem" if tls else ""
    values = {"file": file, "package": package_id(package), "source": source, "tls": options,
              "certificates": _CERTIFICATES if tls else _LOOPBACK, "setting": _SETTING if tls else _ADDRESS}  # fmt: skip
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


_CERTIFICATES = """\
   `server.pem` (with HOST among its names) and `server.key` are a TLS pair for this server, `peers-tls-ca.pem` is the authority
   of the certificate that the peer shows to it; the peer's own TLS pair will do for that. Off the loopback interface the
   server demands this: otherwise whoever reaches its port could run the contract."""
_LOOPBACK = """\
   This package is for a server on the peer's own machine (HOST is 127.0.0.1), without TLS. For another machine make one without
   `--no-tls`: otherwise whoever reaches the port could run the contract."""
_SETTING = """\
   `server-tls-ca.pem` is the authority of `server.pem`; `peer-tls.pem` and `peer-tls.key` are what the peer shows:

       export CHAINCODE_AS_A_SERVICE_BUILDER_CONFIG=$(python -c 'import json, sys
       print(json.dumps(dict(zip(["address", "root_cert", "client_cert", "client_key"], \\
           sys.argv[1:2] + [open(name).read() for name in sys.argv[2:]]))))' \\
           HOST:9999 server-tls-ca.pem peer-tls.pem peer-tls.key)"""
_ADDRESS = """\

       export CHAINCODE_AS_A_SERVICE_BUILDER_CONFIG='{"address": "HOST:9999"}'"""
