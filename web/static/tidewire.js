/* Tidewire's browser snippet: Segment's calls, and her inbox. Served as it stands; described in docs/collecting.md.

   window.tidewire = window.tidewire || [];
   tidewire.push(["load", "PUBLIC_KEY"], ["page"]);

   Every event rests in localStorage, under a key of its own (tabs would overwrite each other's list), until the collector
   answered 200. It may be sent twice; by its messageId it counts once. */
(() => {
  "use strict";
  const VERSION = "1";
  const PREFIX = "tidewire.";
  const EVENTS = PREFIX + "event.";
  const MOST_EVENTS = 1000; // kept while offline; beyond it the oldest go
  const MOST_BYTES = 60000; // of one request: browsers let 64 KB outlive the page
  const MOST_IN_REQUEST = 50;
  const GATHER_MS = 100;
  const LONGEST_PAUSE_MS = 60000;
  const SEND_AGAIN_MS = 20 * 3600 * 1000; // the collector knows a messageId again for 24 hours

  const script = document.currentScript;
  const before = window.tidewire;
  const memory = {};
  let writeKey = "";
  let host = script && script.src ? new URL(script.src).origin : location.origin;
  let queue = []; // [key in storage, event as JSON]
  let onTheWay = []; // those of them that a request carries now
  let failures = 0;
  let timer = 0;

  /* ---- what is remembered: localStorage, else a cookie (for ids), else this page's memory ---- */

  const storage = (() => {
    try {
      localStorage.setItem(PREFIX, "1");
      localStorage.removeItem(PREFIX);
      return localStorage;
    } catch {
      return null;
    }
  })();

  const remember = (name, value) => {
    memory[name] = value;
    try {
      if (storage) storage.setItem(PREFIX + name, value);
      else document.cookie = `${PREFIX}${name}=${encodeURIComponent(value)};path=/;max-age=31536000;SameSite=Lax`;
    } catch {
      /* full or forbidden: this page still knows it */
    }
  };

  const recall = (name) => {
    try {
      if (storage) return storage.getItem(PREFIX + name) || memory[name] || "";
      const cookie = document.cookie.split("; ").find((pair) => pair.startsWith(`${PREFIX}${name}=`));
      if (cookie) return decodeURIComponent(cookie.split("=")[1]);
    } catch {
      /* as if there were none */
    }
    return memory[name] || "";
  };

  const forget = (key) => {
    if (storage) storage.removeItem(key);
  };

  const keep = (key, json, beaconAt) => {
    try {
      if (storage) storage.setItem(key, beaconAt + " " + json);
    } catch {
      /* full: it is sent from memory */
    }
  };

  const uuid = () => {
    if (crypto.randomUUID) return crypto.randomUUID(); // absent on plain http
    const hex = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
  };

  const anonymousId = () => {
    if (!recall("anonymous")) remember("anonymous", uuid());
    return recall("anonymous");
  };

  /* ---- what is known without asking ---- */

  const page = () => ({
    path: location.pathname,
    referrer: document.referrer,
    search: location.search,
    title: document.title,
    url: location.href,
  });

  const context = () => {
    const known = {
      library: { name: "tidewire.js", version: VERSION },
      page: page(),
      userAgent: navigator.userAgent,
      locale: navigator.language,
      timezone: Intl.DateTimeFormat().resolvedOptions().timeZone,
      screen: { width: screen.width, height: screen.height, density: window.devicePixelRatio },
    };
    const campaign = {};
    for (const [name, value] of new URLSearchParams(location.search)) {
      if (name.startsWith("utm_")) campaign[name === "utm_campaign" ? "name" : name.slice(4)] = value;
    }
    if (Object.keys(campaign).length) known.campaign = campaign;
    return known;
  };

  /* ---- the queue ---- */

  const enqueue = (type, fields) => {
    const event = {
      type,
      messageId: uuid(),
      anonymousId: anonymousId(),
      timestamp: new Date().toISOString(),
      context: context(),
      ...fields,
    };
    if (!event.userId && recall("user")) event.userId = recall("user");
    const key = EVENTS + Date.now() + "." + event.messageId;
    let json;
    try {
      json = JSON.stringify(event);
    } catch (error) {
      console.warn("tidewire:", error); // a circle, say: the page's mistake must not stop the page
      return;
    }
    keep(key, json, 0);
    queue.push([key, json]);
    while (queue.length > MOST_EVENTS) forget(queue.shift()[0]);
    if (!timer && !onTheWay.length) wait(GATHER_MS);
  };

  const wait = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(send, ms);
  };

  /* Events that an earlier page, or one that crashed, did not get rid of. */
  const adopt = () => {
    if (!storage) return;
    for (const key of Object.keys(storage).filter((name) => name.startsWith(EVENTS)).sort()) {
      if (queue.some(([known]) => known === key)) continue;
      const [, beaconAt, json] = /^(\d+) (.*)$/s.exec(storage.getItem(key)) || [];
      if (!json || (beaconAt > 0 && Date.now() - beaconAt > SEND_AGAIN_MS)) forget(key);
      else queue.push([key, json]);
    }
  };

  /* The next events that fit one request, and its body. */
  const request = () => {
    const taken = [];
    let bytes = 200;
    for (const item of queue.filter((each) => !onTheWay.includes(each)).slice(0, MOST_IN_REQUEST)) {
      bytes += new Blob([item[1]]).size + 1;
      if (taken.length && bytes > MOST_BYTES) break;
      taken.push(item);
    }
    const head = JSON.stringify({ writeKey, sentAt: new Date().toISOString() }).slice(0, -1);
    return [taken, `${head},"batch":[${taken.map((item) => item[1]).join()}]}`, bytes];
  };

  const done = (taken) => {
    taken.forEach(([key]) => forget(key));
    queue = queue.filter((item) => !taken.includes(item));
  };

  /* A text body needs no preflight. */
  const send = async () => {
    timer = 0;
    if (onTheWay.length || !writeKey || !queue.length) return;
    const [taken, body, bytes] = request();
    onTheWay = taken;
    let pause = 0;
    try {
      const answer = await fetch(host + "/v1/batch", {
        method: "POST",
        body,
        keepalive: bytes <= MOST_BYTES,
        credentials: "omit",
      });
      if (answer.ok) {
        done(taken);
        failures = 0;
      } else if (answer.status === 408 || answer.status === 429 || answer.status >= 500) {
        pause = 1000 * (parseInt(answer.headers.get("Retry-After"), 10) || 1);
      } else {
        done(taken); // they would be refused again
        console.warn("tidewire:", answer.status, await answer.text());
      }
    } catch {
      pause = 1000; // offline, or the collector is
    }
    onTheWay = [];
    if (pause) {
      failures += 1;
      wait(Math.max(pause, Math.min(LONGEST_PAUSE_MS, 500 * 2 ** failures)) * (1 + Math.random() / 4));
    } else if (queue.length) wait(0);
  };

  /* The page is left: what waits goes by beacon. Nobody hears whether it arrived, so the next page sends it again. */
  const leave = () => {
    while (writeKey && navigator.onLine !== false) {
      const [taken, body] = request();
      if (!taken.length || !navigator.sendBeacon(host + "/v1/batch", body)) return;
      taken.forEach(([key, json]) => keep(key, json, Date.now()));
      queue = queue.filter((item) => !taken.includes(item));
    }
  };

  /* ---- the calls ---- */

  const texts = (values) => values.filter((value) => typeof value === "string");
  const object = (values) => values.find((value) => value && typeof value === "object") || {};

  const api = {
    load(key, options) {
      writeKey = key;
      if (options && options.host) host = options.host.replace(/\/+$/, "");
      adopt();
      wait(0);
    },
    identify(userId, traits) {
      if (userId && typeof userId === "object") traits = userId;
      else if (userId) remember("user", String(userId));
      enqueue("identify", { traits: traits || {} });
    },
    track(event, properties) {
      enqueue("track", { event, properties: properties || {} });
    },
    page(...args) {
      const [name, category] = texts(args).reverse();
      enqueue("page", { name, category, properties: { ...page(), ...object(args) } });
    },
    group(groupId, traits) {
      enqueue("group", { groupId, traits: traits || {} });
    },
    alias(userId, previousId) {
      enqueue("alias", { userId: String(userId), previousId: previousId || recall("user") || anonymousId() });
      remember("user", String(userId));
    },
    reset() {
      token = "";
      remember("user", "");
      remember("anonymous", uuid());
    },
    anonymousId,
    push(...calls) {
      for (const [name, ...args] of calls) if (name in api) api[name](...args);
    },
  };

  /* ---- her inbox, docs/inbox.md; the token is made by the shop's backend ---- */

  let token = "";
  const ask = async (path, options) => {
    const answer = await fetch(host + "/inbox" + path, {
      headers: { authorization: "Bearer " + token },
      credentials: "omit",
      ...options,
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.message);
    return said;
  };
  api.inbox = (options = {}) => {
    const { token: newest, ...query } = options;
    token = newest || token;
    return ask("?" + new URLSearchParams(query));
  };
  api.inbox.read = (ids) =>
    ask("/read", { method: "POST", body: JSON.stringify(ids === "all" ? { all: true } : { ids }) });

  addEventListener("online", () => wait(0));
  addEventListener("pagehide", leave);
  document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && leave());
  window.tidewire = api;
  if (Array.isArray(before)) api.push(...before);
})();
