"""A mail server for tests: takes mail over TLS from one user and writes it to files.

Arguments: folder (with certificate.pem, key.pem and mail/), port, starttls or implicit, user, password.
"""

import asyncio
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

folder, port, mode, user, password = sys.argv[1:]
folder = pathlib.Path(folder)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")


class Handler:
    """Writes each mail to a file of its own, aside and renamed, so that readers find whole mails."""

    count = 0

    async def handle_DATA(self, server, session, envelope):
        Handler.count += 1
        path = folder / "mail" / f"{Handler.count:04}.eml"
        staged = path.with_suffix(".new")
        staged.write_bytes(envelope.content)
        staged.rename(path)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    expected = LoginPassword(user.encode(), password.encode())
    return AuthResult(success=data == expected, handled=False)


def protocol():
    starttls = mode == "starttls"
    return SMTP(
        Handler(),
        hostname="localhost",
        tls_context=context if starttls else None,
        require_starttls=starttls,
        auth_required=True,
        # The connection already is encrypted where TLS is implicit; the library only knows STARTTLS.
        auth_require_tls=starttls,
        authenticator=authenticate,
    )


async def serve():
    loop = asyncio.get_running_loop()
    implicit = context if mode == "implicit" else None
    server = await loop.create_server(protocol, "localhost", int(port), ssl=implicit)
    async with server:
        await server.serve_forever()


asyncio.run(serve())
