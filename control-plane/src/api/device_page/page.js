// Typed code → ticket → sign-in (password, GitHub, Google) → second factor where there is one → done.
"use strict";

const find = (id) => document.getElementById(id);
const steps = ["code-step", "login-step", "second-step"];
let ticket = "";
let tempToken = "";

// Shows one step, or none, and puts the focus where reading goes on.
function show(step) {
  for (const id of steps) find(id).hidden = id !== step;
  const first = step ? find(step).querySelector("input") : find("outcome");
  if (!step) first.tabIndex = -1;
  first.focus();
}

function finish(text) {
  find("problem").textContent = "";
  find("outcome").textContent = text;
  show("");
}

async function call(path, body) {
  const response = await fetch("/api/v1" + path, {
    method: body ? "POST" : "GET",
    headers: { "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
    credentials: "omit",
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  return answer.data;
}

// Runs a step; its error is shown, and its button cannot be pressed twice.
async function attempt(form, work) {
  const buttons = form.querySelectorAll("button");
  find("problem").textContent = "";
  for (const button of buttons) button.disabled = true;
  try {
    await work();
  } catch (error) {
    find("problem").textContent = error.message;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

function on(id, work) {
  const form = find(id);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(form, work);
  });
}

const approved = () => finish("Done: the device is signed in. You can close this page.");

on("code-step", async () => {
  const device = await call("/auth/device/verify_code", { user_code: find("user-code").value });
  ticket = device.ticket;
  find("client").textContent = device.client || "without a name";
  find("address").textContent = device.ip_address;
  find("shown-code").textContent = find("user-code").value.toUpperCase();
  const ways = await call("/auth/config");
  const links = [["github", "GitHub"], ["google", "Google"]]
    .filter(([word]) => ways[word].enabled)
    .map(([word, name]) => {
      const link = document.createElement("a");
      link.href = "/api/v1/auth/device/authorize?" + new URLSearchParams({ ticket, provider: word });
      link.textContent = "Sign in with " + name;
      return link;
    });
  find("providers").replaceChildren(...links);
  show("login-step");
});

on("login-step", async () => {
  const username = find("username").value;
  const password = find("password").value;
  const answer = await call("/auth/device/login", { ticket, username, password });
  find("password").value = "";
  if (!answer.requires_2fa) return approved();
  tempToken = answer.temp_token;
  show("second-step");
});

find("deny").addEventListener("click", () =>
  attempt(find("login-step"), async () => {
    await call("/auth/device/deny", { ticket });
    finish("The device was turned away.");
  }),
);

on("second-step", async () => {
  await call("/users/auth/2fa/verify", { temp_token: tempToken, code: find("second-code").value.trim() });
  approved();
});

// Back from a provider: what came of it stands behind the #, and goes out of the history.
const outcome = new URLSearchParams(location.hash.slice(1));
const typed = new URLSearchParams(location.search).get("code");
history.replaceState(null, "", location.pathname);
if (outcome.get("outcome") === "approved") {
  approved();
} else if (outcome.get("temp_token")) {
  tempToken = outcome.get("temp_token");
  show("second-step");
} else {
  find("problem").textContent = outcome.get("problem") || "";
  if (typed) find("user-code").value = typed.slice(0, 16);
  find("user-code").focus();
}
