// One walk of a browser, as JSON on standard input; what came of it as JSON on standard output.
//
//   { url, code?, login?: {username, password}, second?, provider?: {name, account}, deny? }
//
// url is the page for devices, or one that leads to an application, whose address then is the outcome.
import { chromium } from "playwright-core";

const walk = JSON.parse(await new Response(process.stdin).text());
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Only this machine is there.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ],
});
try {
  const context = await browser.newContext();
  context.setDefaultTimeout(30_000);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => /Content Security Policy/.test(message.text()) && problems.push(message.text()));
  let application;
  const atProvider = async (account) => {
    await page.locator("input[name=login]").fill(account);
    await page.locator("input[name=password]").fill("anything");
    await page.getByRole("button", { name: /sign-?in/i }).click();
    await page.getByRole("button", { name: /continue/i }).click();
  };

  await page.goto(walk.url);
  let title;
  if (new URL(walk.url).pathname === "/device") {
    title = await page.getByRole("heading", { level: 1 }).textContent();
    if (walk.code) await page.getByLabel("Code that the device shows").fill(walk.code);
    await page.getByRole("button", { name: "Continue" }).click();
    if (walk.deny) await page.getByRole("button", { name: "Turn the device away" }).click();
    if (walk.login) {
      await page.getByLabel("User name or e-mail address").fill(walk.login.username);
      await page.getByLabel("Password").fill(walk.login.password);
      await page.getByRole("button", { name: "Sign in and let the device in" }).click();
    }
    if (walk.provider) {
      await page.getByRole("link", { name: "Sign in with " + walk.provider.name }).click();
      await atProvider(walk.provider.account);
    }
    if (walk.second) {
      await page.getByLabel("Code of your authenticator").fill(walk.second);
      await page.getByRole("button", { name: "Let the device in" }).click();
    }
    await page.waitForFunction(() =>
      ["outcome", "problem"].some((id) => document.getElementById(id)?.textContent),
    );
  } else {
    // Nothing is there: what counts is where the browser is sent.
    const sent = page.waitForRequest((request) => request.isNavigationRequest() && /^https:/.test(request.url()));
    await atProvider(walk.provider.account);
    application = (await sent).url();
  }
  const text = async (id) => ((await page.locator(id).count()) ? page.locator(id).textContent() : "");
  const outcome = { application, title, outcome: await text("#outcome"), problem: await text("#problem"), problems };
  console.log(JSON.stringify(outcome));
} finally {
  await browser.close();
}
