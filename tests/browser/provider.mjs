// A real OpenID provider on loopback: node provider.mjs PORT TLS_PORT PUBLIC_URL CLIENT_SECRET CERTIFICATE KEY
//
// Browsers come to PORT in the clear; the platform asks on TLS_PORT, with a certificate (PEM) that no authority of
// the system signed.
// Google's part is the provider's own; what GitHub has beside OAuth (/user, /user/emails, stars) is added, for whoever
// has an access token of this provider. An account called "unverified…" has an address that is not verified.
import fs from "node:fs";
import https from "node:https";
import Provider from "oidc-provider";

const [port, tlsPort, publicUrl, secret, certificate, key] = process.argv.slice(2);
const STARRED = "/user/starred/hoody/hoody";
const claims = (id) => ({
  sub: id,
  name: id,
  email: `${id}@example.com`,
  email_verified: !id.startsWith("unverified"),
});

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "hoody",
      client_secret: secret,
      token_endpoint_auth_method: "client_secret_post",
      redirect_uris: ["github", "google"].map((name) => `${publicUrl}/api/v1/auth/${name}/callback`),
    },
  ],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  scopes: ["openid", "email", "profile", "read:user", "user:email"],
  pkce: { required: () => true, methods: ["S256"] },
  cookies: { keys: ["loopback"] },
  findAccount: (_, id) => ({ accountId: id, claims: () => claims(id) }),
});

provider.use(async (ctx, next) => {
  if (!["/user", "/user/emails", STARRED].includes(ctx.path)) return next();
  const token = await provider.AccessToken.find((ctx.get("authorization") || "").replace(/^Bearer /, ""));
  if (!token) {
    ctx.status = 401;
    return;
  }
  const { name, email, email_verified } = claims(token.accountId);
  if (ctx.path === STARRED) {
    // As GitHub answers: no body either way.
    ctx.status = name.startsWith("star") ? 204 : 404;
    return;
  }
  // A number, as GitHub's ids are.
  const id = [...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) % 1e9;
  ctx.body =
    ctx.path === "/user"
      ? { id, login: name, avatar_url: "https://avatars.example/1" }
      : [
          { email: "other@example.com", primary: false, verified: true },
          { email, primary: true, verified: email_verified },
        ];
});

provider.listen(Number(port), "127.0.0.1");
https
  .createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }, provider.callback())
  .listen(Number(tlsPort), "127.0.0.1");
