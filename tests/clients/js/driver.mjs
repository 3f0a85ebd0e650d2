/**
 * One exchange of fal's own JavaScript client; what it returned or threw goes to stdout as JSON.
 *
 *     FAL_KEY=… node driver.mjs http://127.0.0.1:9000 j3 '{}'
 *
 * The client has no setting for its hosts; `requestMiddleware` is the door it leaves open.
 */

import { writeFileSync } from "node:fs";
import { ApiError, createFalClient } from "@fal-ai/client";

const O3 = "fal-ai/kling-video/o3/4k/text-to-video";
const ORDER = { prompt: "hi", duration: "5" };
const DOORS = {
  "https://queue.fal.run/": "/queue/",
  "https://fal.run/": "/run/",
  "https://rest.fal.ai/": "/rest/",
};

const [, , base, name, args] = process.argv;

const fal = createFalClient({
  requestMiddleware: async (request) => {
    const [host, door] = Object.entries(DOORS).find(([host]) => request.url.startsWith(host));
    return { ...request, url: base + door + request.url.slice(host.length) };
  },
});

const submitted = async (input = { prompt: "hi" }) =>
  (await fal.queue.submit(O3, { input })).request_id;

const finished = async () => {
  const requestId = await submitted();
  await fal.queue.subscribeToStatus(O3, { requestId, pollInterval: 20 });
  return requestId;
};

const exchanges = {
  j1: () =>
    fal.queue.submit(O3, {
      input: ORDER,
      webhookUrl: "https://me.example/hook?job=1&k=v",
      priority: "low",
      hint: "h1",
      startTimeout: 30,
      headers: { "X-Fal-No-Retry": "1" },
      storageSettings: { expiresIn: "1d" },
    }),

  j2: () => fal.queue.submit(O3, { input: { prompt: "hi" } }),

  j3: async () => {
    const requestId = await submitted();
    const bare = await fal.queue.status(O3, { requestId });
    const withLogs = await fal.queue.status(O3, { requestId, logs: true });
    return [bare, withLogs];
  },

  j4: async () => fal.queue.result(O3, { requestId: await finished() }),

  j5: async () => {
    const requestId = await submitted();
    return (await fal.queue.cancel(O3, { requestId })) ?? "undefined";
  },

  j5_done: async () => fal.queue.cancel(O3, { requestId: await finished() }),

  j6: async () => {
    const updates = [];
    const result = await fal.subscribe(O3, {
      input: { prompt: "hi" },
      logs: true,
      onQueueUpdate: (update) => updates.push(update.status),
    });
    return { ...result, updates };
  },

  j7: async () => {
    const updates = [];
    const result = await fal.subscribe(O3, {
      input: { prompt: "hi" },
      logs: true,
      mode: "streaming",
      onQueueUpdate: (update) => updates.push(update.status),
    });
    return { ...result, updates };
  },

  j8: () => fal.run(O3, { input: ORDER }),

  j9: async () => {
    const stream = await fal.stream(O3, { input: ORDER });
    const events = [];
    for await (const event of stream) events.push(event);
    return { events, done: await stream.done() };
  },

  j10: () =>
    fal.storage.upload(new File(["hello"], "a.txt", { type: "text/plain" }), {
      lifecycle: { expiresIn: "1d" },
    }),

  j10_bare: () => fal.storage.upload(new File(["hello"], "a.txt", { type: "text/plain" })),

  j11: () =>
    fal.queue.submit("fal-ai/kling-video/o3/4k/image-to-video", {
      input: { prompt: "hi", image_url: new Blob(["not really a picture"], { type: "image/png" }) },
    }),

  j12: ({ size }) =>
    fal.storage.upload(new File([Buffer.alloc(size, "callsheet")], "a.mp4", { type: "video/mp4" })),

  submit: ({ prompt }) => fal.queue.submit(O3, { input: { prompt } }),

  run: ({ prompt }) => fal.run(O3, { input: { prompt } }),

  result: async ({ request_id: requestId }) => {
    await fal.queue.subscribeToStatus(O3, { requestId, pollInterval: 20 });
    return fal.queue.result(O3, { requestId });
  },
};

const said = await exchanges[name](JSON.parse(args)).then(
  (returned) => ({ returned }),
  (error) => {
    if (!(error instanceof ApiError)) throw error;
    const { name, status, body, fieldErrors: reasons, isUserTimeout: timed_out } = error;
    return { raised: { type: name, status, body, reasons, timed_out } };
  },
);
writeFileSync(1, JSON.stringify(said));
