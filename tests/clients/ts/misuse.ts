// What a caller in TypeScript can't get past the compiler: a line here that compiles is an error.

import createClient from "openapi-fetch";
import type { components, paths } from "./callsheet";

const callsheet = createClient<paths>({ baseUrl: "http://127.0.0.1:8000" });
const model = "fal-ai/kling-video/o3/4k/text-to-video";

export async function misuses(job: components["schemas"]["JobView"]): Promise<void> {
  // @ts-expect-error no such operation
  await callsheet.GET("/v1/videos");
  // @ts-expect-error a job is looked at, not put
  await callsheet.PUT("/v1/jobs/{job_id}", { params: { path: { job_id: job.id } } });
  // @ts-expect-error an order needs its input
  await callsheet.POST("/v1/jobs", { body: { model } });
  // @ts-expect-error money is text, never a float
  await callsheet.POST("/v1/jobs", { body: { model, input: {}, max_cost: 2.5 } });
  // @ts-expect-error no such word
  await callsheet.POST("/v1/jobs", { body: { model, input: {}, priority: "urgent" } });
  // @ts-expect-error no such field
  const order: components["schemas"]["JobOrder"] = { model, input: {}, promt: "x" };
  await callsheet.POST("/v1/jobs", { body: order });
  // @ts-expect-error no such status
  await callsheet.GET("/v1/jobs", { params: { query: { status: ["done"] } } });
  // @ts-expect-error a job has no such field
  job.price;
  // @ts-expect-error until it ends, nothing is charged
  job.cost.charged.length;
}
