// Chat with OpenAI's client for Node and vote with fetch.
//   npm install openai; OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=… node examples/openai_node.mjs
import OpenAI from "openai";

const client = new OpenAI();
const answer = await client.chat.completions.create({
  model: "rlhf-online",
  messages: [{ role: "user", content: "What is a gate?" }],
});
console.log(answer.choices[0].message.content);

const vote = {
  thumb: { answer: { completion_id: answer.id }, up: true },
  user: "ann",
  idempotency_key: crypto.randomUUID(), // made once: a vote that is sent again under it is the same vote
};
const reply = await client.post("/feedback", { body: vote }); // the client's own key, retries and time limit
console.log(reply.event_id);
