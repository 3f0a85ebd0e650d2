// What needs a person, live. Everything shown is put in as text, never as markup.

const EVERY_MS = 5000;
const KEPT = "callsheet_admin_key";
const find = (id) => document.getElementById(id);
let timer = null;
let round = 0;

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEPT)}`, "Content-Type": "application/json" };
  const answer = await fetch(`/v1/admin/incidents${path}`, { ...options, headers });
  const told = await answer.json();
  if (answer.status === 401 || answer.status === 403) throw new Refused(told.detail ?? told.title);
  if (!answer.ok) throw new Error(told.detail ?? told.title);
  return told;
}

function enter(why) {
  clearTimeout(timer);
  round += 1; // an answer that is still under way is for nobody now
  sessionStorage.removeItem(KEPT);
  for (const id of ["open", "closed"]) find(id).replaceChildren();
  find("told").hidden = find("leave").hidden = true;
  find("watch").textContent = "";
  find("enter").hidden = false;
  find("key").value = "";
  complain(why);
  find("key").focus();
}

function complain(why) {
  find("trouble").hidden = !why;
  find("trouble").textContent = why ?? "";
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++round;
  try {
    const [open, closed] = await Promise.all([ask("?open=true&limit=100"), ask("?open=false&limit=10")]);
    if (mine !== round) return;
    complain(null);
    show(open, closed);
  } catch (error) {
    if (mine !== round) return;
    if (error instanceof Refused) return enter(error.message);
    complain(`What is shown may be old: ${error.message}`);
  }
  timer = setTimeout(refresh, EVERY_MS);
}

function show(open, closed) {
  find("enter").hidden = true;
  find("told").hidden = find("leave").hidden = false;
  tellWatch(open);
  list(find("open"), open.data);
  list(find("closed"), closed.data);
  find("well").hidden = open.data.length > 0 || !open.watching || open.blind.length > 0;
  find("quiet").hidden = closed.data.length > 0;
  const more = open.next_cursor ? "+" : "";
  document.title = open.data.length ? `(${open.data.length}${more}) Callsheet: incidents` : "Callsheet: incidents";
}

function tellWatch({ watching, watched_at, blind }) {
  const at = watched_at ? time(watched_at) : null;
  let text = `Last watched ${at}`;
  if (!watching) text = `Nobody has watched ${at ? `since ${at}` : "yet"}: start a worker with callsheet work`;
  else if (blind.length) text = `These couldn't be watched for: ${blind.join(", ")}`;
  find("watch").textContent = text;
  find("watch").classList.toggle("bad", !watching || blind.length > 0);
}

// One element for each incident, kept as long as it is listed: what somebody types into it stays.
function list(place, incidents) {
  const shown = new Map([...place.children].map((child) => [child.dataset.id, child]));
  const wanted = incidents.map((incident) => fill(shown.get(incident.id) ?? card(incident), incident));
  for (const child of shown.values()) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, place_) => {
    if (place.children[place_] !== child) place.insertBefore(child, place.children[place_] ?? null);
  });
}

function card(incident) {
  const item = find("incident").content.firstElementChild.cloneNode(true);
  item.dataset.id = incident.id;
  item.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const reason = new FormData(event.target).get("reason");
    try {
      await ask(`/${incident.id}/dismiss`, { method: "POST", body: JSON.stringify({ reason }) });
      await refresh();
      find("open-title").tabIndex = -1;
      find("open-title").focus();
    } catch (error) {
      if (error instanceof Refused) enter(error.message);
      else complain(error.message);
    }
  });
  return item;
}

function fill(item, incident) {
  const set = (selector, text) => {
    const part = item.querySelector(selector);
    if (part.textContent !== text) part.textContent = text;
    part.hidden = !text;
  };
  const { detail } = incident;
  const count = `${detail.at_least ? "at least " : ""}${incident.jobs} ${incident.jobs === 1 ? "job" : "jobs"}`;
  set("h3", incident.title + (incident.subject ? `: ${incident.subject}` : ""));
  set(".facts", `since ${time(incident.since)} · ${count} · ${incident.amount} USD`);
  set(".todo", incident.closed_at ? "" : incident.todo);
  const end = incident.closed_at ? `Over since ${time(incident.closed_at)}.` : "";
  const { dismissed } = incident;
  set(".end", dismissed ? `Dismissed ${time(dismissed.at)} by ${dismissed.by}: ${dismissed.reason}` : end);
  const ids = detail.jobs ?? [];
  const jobs = item.querySelector(".jobs");
  // Left alone while they are the same, so that one can be selected and copied.
  if (jobs.textContent !== ids.join("")) {
    jobs.replaceChildren(...ids.map((id) => Object.assign(document.createElement("code"), { textContent: id })));
  }
  jobs.hidden = ids.length === 0;
  item.querySelector(".dismiss").hidden = Boolean(incident.closed_at);
  return item;
}

function time(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

find("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEPT, find("key").value.trim());
  refresh();
});
find("leave").addEventListener("click", () => enter(null));
if (sessionStorage.getItem(KEPT)) refresh();
else enter(null);
