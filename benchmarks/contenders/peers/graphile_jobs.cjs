// graphile-worker: 32 jobs at a time in each process, 200 fetched at once, results written together. It deletes a job
// that is done and keeps nothing of it.
"use strict";

const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { Agent, request } = require("undici");

const REQUEST = JSON.parse(process.env.BENCH_REQUEST);
const CHUNK = 1000; // jobs of one INSERT
const connectionString = process.env.DATABASE_URL;
const logger = new Logger(() => () => {}); // no line for each job
const dispatcher = new Agent({ connections: 32, pipelining: 1 });

async function fill(count) {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  for (let done = 0; done < count; done += CHUNK) {
    await utils.addJobs(
      Array.from({ length: CHUNK }, () => ({ identifier: "send", payload: { body: REQUEST.body }, maxAttempts: 5 })),
    );
  }
  await utils.release();
}

async function send({ body }) {
  const answer = await request(REQUEST.url, { method: "POST", body, headers: REQUEST.headers, dispatcher });
  const text = await answer.body.text();
  if (answer.statusCode !== 200 || text !== REQUEST.answer) {
    throw new Error(`answer ${answer.statusCode}`);
  }
}

async function work() {
  const runner = await run({
    preset: {
      worker: {
        connectionString,
        concurrentJobs: 32,
        localQueue: { size: 200 },
        completeJobBatchDelay: 50, // measured: 0 and none are slower
        logger,
      },
    },
    taskList: { send },
  });
  await runner.promise;
}

const counted = process.argv[2];
(counted ? fill(Number(counted)) : work()).catch((error) => {
  console.error(error);
  process.exit(1);
});
