// A caller in TypeScript, as the README has it: order a video, look at it, list what there is.

import createClient from "openapi-fetch";
import type { components, paths } from "./callsheet";

type Job = components["schemas"]["JobView"];

const callsheet = createClient<paths>({
  baseUrl: "http://127.0.0.1:8000",
  headers: { Authorization: "Bearer cs_…" },
});

export async function order(prompt: string, key: string): Promise<Job> {
  const { data, error } = await callsheet.POST("/v1/jobs", {
    params: { header: { "idempotency-key": key, prefer: "wait=30" } },
    body: { model: "fal-ai/kling-video/o3/4k/text-to-video", input: { prompt, duration: "5" }, max_cost: "2.50" },
  });
  if (error) throw new Error(`${error.code}: ${error.errors?.map((fault) => fault.pointer).join(", ")}`);
  return data;
}

export async function charged(jobId: string): Promise<string | null> {
  const { data, error } = await callsheet.GET("/v1/jobs/{job_id}", { params: { path: { job_id: jobId } } });
  if (error) throw new Error(error.title);
  return data.status === "succeeded" ? data.cost.charged : null;
}

export async function waiting(): Promise<string[]> {
  const { data } = await callsheet.GET("/v1/jobs", { params: { query: { status: ["queued", "submitted"], limit: 50 } } });
  return (data?.data ?? []).map((job) => `${job.id} waits for ${job.waiting?.for ?? "nothing"}`);
}

// What a callback brings; its signature is verified before.
export function told(callback: components["schemas"]["Callback"]): string {
  return `${callback.type}: ${callback.data.job.status}`;
}
