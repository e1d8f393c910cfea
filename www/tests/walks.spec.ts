/** What a newcomer does, against the stand-in of `fake/`: own rows, the end of a run, the shelf. */

import { expect, test, type Page } from "@playwright/test";
import { choose, expectNoOverflow, figure, pick, picture, reachesStep, runState, section, setSetting, textFile, watchPage } from "./helpers";

async function open(page: Page, flags = ""): Promise<ReturnType<typeof watchPage>> {
  const seen = watchPage(page);
  await page.goto(`/fake/?fake=${flags}`);
  await page.getByRole("heading", { level: 1 }).waitFor();
  return seen;
}

const demo = (page: Page) => page.getByRole("button", { name: "Run the demo" }).click();
const done = (page: Page) => expect(runState(page)).toHaveText(/^done/, { timeout: 60_000 });
const load = (page: Page) => page.getByRole("button", { name: "Load the built-in model" }).click();
const preview = (page: Page) => page.getByRole("region", { name: "Row as the model reads it" });

test("new rows forget the held-out rows of another set, unless they were chosen for them", async ({ page }) => {
  await open(page);
  await load(page);
  const rows = section(page, "Rows");
  await expect(rows).toContainText("Held out: swap, held out");
  await pick(page, "Import…", textFile("own.jsonl", '{"prompt": "Who?", "completion": " Wren."}\n'));
  await expect(rows).toContainText("own.jsonl · 1 row");
  await expect(rows).not.toContainText("swap, held out");
  await expect(page.getByRole("list", { name: "Prompts from the rows" })).not.toContainText("black lamp");
  await pick(page, "Held-out file…", textFile("exam.jsonl", '{"prompt": "What?", "completion": " Tea."}\n'));
  await expect(rows).toContainText("exam.jsonl");
  // Another file is another task.
  await pick(page, "Choose a file of rows…", textFile("other.jsonl", '{"prompt": "Where?", "completion": " Here."}\n'));
  await expect(rows).not.toContainText("exam.jsonl");
  await choose(page, "Where the rows come from", "Paste");
  await pick(page, "Held-out file…", textFile("exam.jsonl", '{"prompt": "What?", "completion": " Tea."}\n'));
  await page.getByLabel(/^One JSON object a line/).fill('{"prompt": "a", "completion": " b"}');
  await expect(rows).toContainText("pasted rows · 1 row");
  await expect(rows).toContainText("exam.jsonl");
});

test("a run ends with a point: before and after, and how many rows are right", async ({ page }, info) => {
  await open(page);
  await demo(page);
  await expect.poll(() => page.title()).toMatch(/^\d+ % · weblora$/);
  await done(page);
  const end = page.getByRole("region", { name: "What the run changed" });
  await expect(end).toContainText("0 % → 100 % of 64 held-out rows answered exactly", { timeout: 60_000 });
  await expect(end.getByRole("article", { name: "Before" })).toContainText("Ben and Anna are happy");
  await expect(end.getByRole("article", { name: "After" })).toContainText("Anna has a brown boat. Ben has a black lamp.");
  await expect.poll(() => page.title()).toBe("Done · weblora");
  await picture(page, info, "finale");
  await end.getByRole("button", { name: "Now your own rows" }).click();
  await page.getByRole("textbox", { name: "Question 1", exact: true }).fill("Who keeps the light?");
  await page.getByRole("textbox", { name: "Answer 1", exact: true }).fill("Wren does.");
  await expect(preview(page)).toContainText("Who keeps the light? Wren does.");
  await page.getByRole("button", { name: "Another one" }).click();
  await expect(page.getByRole("textbox", { name: "Question 4", exact: true })).toBeFocused();
  await picture(page, info, "teach");
});

test("tables, spreadsheets, questions and plain text become rows; what is not read is named", async ({ page }, info) => {
  await open(page);
  await load(page);
  await choose(page, "Where the rows come from", "File");
  await pick(page, "Choose a file of rows…", textFile("faq.csv", 'id;answer;question\n1;"Tea; with ""salt""";What does she drink?\n2;On the Skerry;Where?\n'));
  await expect(section(page, "Rows")).toContainText("faq.csv · 2 rows");
  await expect(preview(page)).toContainText('What does she drink? Tea; with "salt"');
  await page.getByLabel("What the model reads").selectOption("0");
  await expect(preview(page)).toContainText("1 Tea; with");
  await picture(page, info, "columns");
  await pick(page, "Choose a file of rows…", textFile("qa.json", '[\n  {\n    "question": "Who?",\n    "answer": "Wren"\n  }\n]'));
  await expect(preview(page)).toContainText("Who? Wren");
  await pick(page, "Choose a file of rows…", textFile("song.txt", "First verse,\nstill first.\n\nSecond verse."));
  await expect(section(page, "Rows")).toContainText("song.txt · 2 rows");
  await page.getByRole("button", { name: "Edit these rows" }).click();
  await expect(page.getByLabel(/^One JSON object a line/)).toHaveValue(/First verse/);
  await page.getByLabel(/^One JSON object a line/).fill("question\tanswer\nWho?\tWren");
  await expect(section(page, "Rows")).toContainText("pasted rows");
  await expect(section(page, "Rows")).toContainText("pasted rows · 1 row");
  await choose(page, "Where the rows come from", "File");
  for (const [name, bytes, why] of [["x.parquet", "PAR1", "a Parquet file"], ["x.xlsx", "PK\u0003\u0004", "a zip archive or a spreadsheet"], ["x.pdf", "%PDF-1.7", "a PDF"]] as const) {
    await pick(page, "Choose a file of rows…", textFile(name, bytes));
    await expect(section(page, "Rows").getByRole("alert")).toContainText(`${name} is ${why}, which is not read here`);
  }
});

test("tables are read as spreadsheets save them, held out too, and what is dropped anywhere is named", async ({ page }) => {
  await open(page);
  await load(page);
  const rows = section(page, "Rows");
  const table = (name: string, bytes: Buffer) => ({ name, mimeType: "text/csv", buffer: bytes });
  await choose(page, "Where the rows come from", "File");
  // As spreadsheets save tables in much of Europe: semicolons, and no UTF-8.
  await pick(page, "Choose a file of rows…", table("de.csv", Buffer.from("question;answer\r\nWer?;J\u00fcrgen\r\n", "latin1")));
  await expect(preview(page)).toContainText("Wer? Jürgen");
  await pick(page, "Choose a file of rows…", table("wide.tsv", Buffer.from("\ufeffquestion\tanswer\nWho?\tZoë\n", "utf16le")));
  await expect(preview(page)).toContainText("Who? Zoë");
  await pick(page, "Held-out file…", table("exam.csv", Buffer.from("answer,question\nTea.,What?\nHere.,Where?\n")));
  await expect(rows).toContainText("Held out: exam.csv");
  await expect(page.getByRole("list", { name: "Prompts from the rows" })).toContainText("What?");
  await pick(page, "Choose a file of rows…", table("one.csv", Buffer.from("only\none column\n")));
  await expect(rows.getByRole("alert")).toContainText("one.csv has no two columns");
  for (const [name, bytes, why] of [["x.parquet", "PAR1", "a Parquet file"], ["x.pdf", "%PDF-1.7", "a PDF"], ["x.xlsx", "PK\u0003\u0004", "a spreadsheet, which is not read here; unpack it, or save the sheet as CSV"]] as const) {
    await pick(page, "Import…", textFile(name, bytes));
    await expect(page.locator(".notice")).toContainText(why);
  }
});

test("finished runs are kept until they are deleted, and open again after a reload", async ({ page }, info) => {
  await open(page);
  await demo(page);
  await done(page);
  await page.reload();
  const shelf = page.locator(".shelf");
  await expect(shelf).toContainText("1 finished run kept in this browser, 1.20 MB");
  await shelf.locator("summary").click();
  await expect(shelf).toContainText("lora r8 on weblora demo, rows swap");
  await picture(page, info, "shelf");
  const saved = page.waitForEvent("download");
  await shelf.getByRole("button", { name: /^Save adapter/ }).click();
  expect((await saved).suggestedFilename()).toBe("weblora-demo-lora-step60-adapter.zip");
  await shelf.getByRole("button", { name: /^Open/ }).click();
  const runs = page.getByRole("region", { name: "Runs", exact: true }).locator("tbody tr");
  await expect(runs).toHaveCount(1);
  await expect(runs.first()).toContainText("done, 60 steps");
  await page.getByRole("button", { name: "Compare" }).click();
  await expect(page.getByRole("article", { name: "Base with adapter" })).toContainText("Anna has a brown boat");
  // The curve is there, too.
  await page.getByRole("button", { name: "Loss as a table" }).click();
  await expect(page.getByRole("rowheader", { name: "2", exact: true })).toBeVisible();
  await shelf.getByRole("button", { name: /^Delete/ }).click();
  await expect(shelf).toBeHidden();
});

test("a reload at any point loses nothing that was trained, nor the rows it was trained on", async ({ page }) => {
  await open(page, "slow");
  await load(page);
  await choose(page, "Where the rows come from", "Teach");
  await page.getByRole("textbox", { name: "Question 1", exact: true }).fill("Who has the red hat?");
  await page.getByRole("textbox", { name: "Answer 1", exact: true }).fill("Anna.");
  await expect(section(page, "Rows")).toContainText("what you teach · 1 row");
  await setSetting(page, "steps", "24");
  await expect(page.locator('.plan[aria-busy="false"]')).toContainText("24 steps");
  await page.getByRole("button", { name: "Start training" }).click();
  const offer = page.getByRole("region", { name: "Unfinished runs" });
  const goOn = async (step: RegExp) => {
    await page.reload();
    await expect(offer).toContainText(step);
    await offer.getByRole("button", { name: "Resume" }).click();
    await expect(runState(page)).toHaveText(/^step/);
  };
  // In the middle of a step, and while it is paused.
  await reachesStep(page, 12, 30_000);
  await goOn(/step 1\d of 24/);
  await reachesStep(page, 14, 30_000);
  await page.getByRole("button", { name: "Pause" }).click();
  await expect(runState(page)).toHaveText(/^paused at step/);
  await goOn(/step 1\d of 24/);
  await done(page);
  // While the end asks its rows.
  await page.reload();
  await page.locator(".shelf summary").click();
  await page.getByRole("button", { name: /^Open/ }).click();
  await expect(section(page, "Rows")).toContainText("what you teach · 1 row");
  await expect(page.locator('[data-key="steps"] input')).toHaveValue("24");
  await page.getByRole("button", { name: "Edit these rows" }).click();
  await expect(page.getByRole("textbox", { name: "Answer 1", exact: true })).toHaveValue("Anna.");
});

test("what was found inside one adapter is not shown for another", async ({ page }) => {
  await open(page);
  await demo(page);
  await done(page);
  await page.getByRole("button", { name: "Start another run" }).click();
  await expect(page.getByRole("region", { name: "Runs", exact: true }).locator("tbody tr")).toHaveCount(2);
  await done(page);
  await page.getByRole("button", { name: "Analyse the adapter" }).click();
  await expect(section(page, "Look inside")).toContainText("Of 2 · lora r8:");
  await page.getByLabel("Adapter", { exact: true }).selectOption({ index: 0 });
  await expect(page.getByRole("region", { name: "Medians by projection" })).toHaveCount(0);
});

test("an empty prompt says so, and an old error goes", async ({ page }) => {
  await open(page);
  await load(page);
  const trial = section(page, "Try it");
  await trial.getByRole("textbox", { name: "Prompt" }).fill(" ");
  await trial.getByRole("button", { name: "Compare" }).click();
  await expect(trial.getByRole("alert")).toContainText("Write a prompt first");
  await trial.getByRole("textbox", { name: "Prompt" }).fill("Anna has a lamp.");
  await trial.getByRole("button", { name: "Compare" }).click();
  await expect(trial.getByRole("article", { name: "Base" })).toContainText("Ben and Anna are happy");
  await expect(trial.getByRole("alert")).toHaveCount(0);
});

test("typed rows stay when another way is looked at, and rows of two columns are changed in the form", async ({ page }, info) => {
  await open(page);
  await load(page);
  const rows = section(page, "Rows");
  await choose(page, "Where the rows come from", "Teach");
  await expect(rows).toContainText("The built-in model knows a few hundred words");
  await page.getByRole("textbox", { name: "Question 1", exact: true }).fill("Who has the red hat?");
  await page.getByRole("textbox", { name: "Answer 1", exact: true }).fill("Anna.");
  await expect(rows).toContainText("what you teach · 1 row");
  await expect(page.getByLabel("Preset")).toHaveValue("few");
  await choose(page, "Where the rows come from", "Paste");
  await page.getByLabel(/^One JSON object a line/).fill("One.\n\nTwo.");
  await expect(rows).toContainText("pasted rows · 2 rows");
  await choose(page, "Where the rows come from", "Teach");
  await expect(rows).toContainText("what you teach · 1 row");
  await choose(page, "Where the rows come from", "Paste");
  await expect(rows).toContainText("pasted rows · 2 rows");
  await choose(page, "Where the rows come from", "File");
  await pick(page, "Choose a file of rows…", textFile("two.csv", "question,answer\nWho?,Ben\nWhat?,A kite\n"));
  await page.getByRole("button", { name: "Edit these rows" }).click();
  await expect(page.getByRole("textbox", { name: "Question 2", exact: true })).toHaveValue("What?");
  await page.getByRole("textbox", { name: "Answer 2", exact: true }).fill("A blue kite");
  await expect(rows).toContainText("what you teach · 2 rows");
  await page.getByRole("button", { name: "Next row" }).click();
  await expect(preview(page)).toContainText("What? A blue kite");
  await picture(page, info, "edited");
  await choose(page, "Where the rows come from", "Built in");
  await expect(page.getByLabel("Preset")).toHaveValue("demo");
  await expect(rows).toContainText("swap · 480 rows");
});

test("rows that were typed before a model was loaded are read as that model reads them", async ({ page }) => {
  await open(page);
  await choose(page, "Where the rows come from", "Teach");
  await page.getByRole("textbox", { name: "Question 1", exact: true }).fill("Who keeps the light?");
  await page.getByRole("textbox", { name: "Answer 1", exact: true }).fill("Wren.");
  await expect(section(page, "Rows")).toContainText("what you teach");
  await load(page);
  await expect(preview(page)).toContainText("Who keeps the light? Wren.");
  await expect(page.getByLabel("Preset")).toHaveValue("few");
  await choose(page, "Where the base comes from", "Download");
  await page.getByRole("button", { name: /^Download SmolLM2 135M/ }).click();
  // A model that chats reads a conversation.
  await expect(preview(page)).toContainText("<|user|>Who keeps the light?<|assistant|>Wren.");
  await expect(page.getByLabel("Preset")).toHaveValue("balanced");
});

test("rows that the built-in model can only spell are not promised to be learned", async ({ page }) => {
  await open(page);
  await load(page);
  const foreign = section(page, "Rows").getByText("The built-in model does not know these words");
  await choose(page, "Where the rows come from", "Paste");
  await page.getByLabel(/^One JSON object a line/).fill("Who?\tßäöüßäöü");
  await expect(foreign).toBeVisible();
  await section(page, "Rows").getByRole("button", { name: "Load a larger model" }).click();
  await expect(page.getByRole("button", { name: /^Download SmolLM2 135M/ })).toBeVisible();
  await page.getByLabel(/^One JSON object a line/).fill("Who?\tAnna");
  await expect(foreign).toBeHidden();
});

test("a conversation with a system prompt: each side remembers its own answers", async ({ page }, info) => {
  await open(page);
  await demo(page);
  await done(page);
  const trial = section(page, "Try it");
  const side = (name: string) => trial.getByRole("article", { name, exact: true });
  await expect(trial.getByLabel("System prompt")).toBeHidden();
  await trial.getByRole("radio", { name: "Chat" }).check();
  await trial.getByLabel("System prompt").fill("Be brief");
  const prompt = trial.getByRole("textbox", { name: "Prompt", exact: true });
  await prompt.fill("Hello");
  await prompt.press("Enter");
  await expect(side("Base with adapter").locator(".answer-text")).toHaveText("Told Be brief. Said 1 things, the last Hello. Answered nothing before.");
  await expect(prompt).toHaveValue("");
  await prompt.fill("Who are you?");
  await trial.getByRole("button", { name: "Compare" }).click();
  for (const name of ["Base", "Base with adapter"]) {
    await expect(side(name).locator(".answer-text")).toHaveText("Told Be brief. Said 2 things, the last Who are you?. Answered Told Be brie before.");
    await expect(side(name).getByRole("listitem")).toHaveText([/Hello$/, /Said 1 things/, /Who are you\?$/]);
  }
  await picture(page, info, "conversation");
  await trial.getByRole("button", { name: "New conversation" }).click();
  await expect(side("Base")).toBeHidden();
  await prompt.fill("Again");
  await prompt.press("Enter");
  await expect(side("Base").locator(".answer-text")).toContainText("Said 1 things, the last Again");
});

test("a score has the loss, the right choices and the answers that are exact; so has a run", async ({ page }) => {
  await open(page, "choices");
  await demo(page);
  await done(page);
  await expect(figure(page, "Right choices")).toHaveText("100 %");
  await expect(figure(page, "Answered exactly")).toHaveText("100 %", { timeout: 60_000 });
  await page.getByRole("button", { name: "Score the held-out rows" }).click();
  await expect(section(page, "Try it")).toContainText("Right choices: 25 % without, 87.5 % with. Answered exactly: 0 without, 64 with, of 64 rows.", { timeout: 60_000 });
});

test("a phone keeps Start, progress and Stop in sight, wherever it is scrolled to", async ({ page }, info) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await open(page, "slow");
  await demo(page);
  await expect(runState(page)).toHaveText(/^step/);
  for (const title of ["Base model", "Take it home"]) {
    await section(page, title).scrollIntoViewIfNeeded();
    await expect(page.getByRole("button", { name: "Stop" })).toBeInViewport();
    await expect(page.locator(".bar-state")).toBeInViewport();
    await expect(page.locator(".bar-state")).toHaveText(/^step \d+ of 60/);
  }
  await page.screenshot({ path: info.outputPath("bar.png") });
  await page.getByRole("button", { name: "Stop" }).click();
  await expect(page.getByRole("button", { name: "Start another run" })).toBeInViewport();
});

test("the walk on a phone: demo, own rows, shelf", async ({ page }, info) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await open(page);
  await demo(page);
  await done(page);
  await expect(page.getByRole("region", { name: "What the run changed" })).toContainText("64 held-out rows answered exactly", { timeout: 60_000 });
  await page.locator(".shelf summary").click();
  await page.getByRole("button", { name: "Now your own rows" }).click();
  await expectNoOverflow(page);
  await picture(page, info, "walk-phone");
});
