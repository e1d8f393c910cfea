import { Trainer } from "weblora";

const log = document.getElementById("log");
try {
  const trainer = await Trainer.create();
  await trainer.loadBase({ embedded: true });
  const settings = { steps: 10, batch: 8, seq: 32, lr: 1e-2 };
  for await (const event of trainer.train(settings, { embedded: "train" })) log.textContent += `${JSON.stringify(event)}\n`;
  await trainer.free();
} catch (error) {
  log.textContent += `${JSON.stringify({ event: "error", code: error.code, message: error.message })}\n`;
}
document.title = "finished";
