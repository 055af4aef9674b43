"use strict";
for (const run of document.querySelectorAll(".run")) {
  const frames = run.dataset.frames.split(" ").map(Number), steps = Number(run.dataset.steps);
  const bar = run.querySelector(".scrub");
  if (bar) {
    const [play, range, said] = ["button", "input", "output"].map((name) => bar.querySelector(name));
    const stage = run.querySelector(".stage"), last = frames.length - 1;
    let timer = 0;
    const show = (i) => {
      range.value = i;
      said.textContent = "step " + frames[i];
      stage.style.setProperty("--at", i);
      stage.style.setProperty("--count", frames.length);
      run.classList.toggle("moving", i < last);
      for (const line of run.querySelectorAll(".now")) {
        const from = Number(line.dataset.from), to = Number(line.dataset.to);
        const share = Math.min(frames[i] / steps, 1);
        line.setAttribute("transform", "translate(" + (from + (to - from) * share) + " 0)");
      }
    };
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "\u25B6"; play.setAttribute("aria-label", "play"); };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(range.value) >= last) show(0);
      play.textContent = "\u275A\u275A";
      play.setAttribute("aria-label", "pause");
      timer = setInterval(() => { show(Number(range.value) + 1); if (Number(range.value) >= last) stop(); }, 130);
    });
    range.addEventListener("input", () => { stop(); show(Number(range.value)); });
    bar.hidden = false;
    show(last);
  }
}
for (const box of document.querySelectorAll(".copy")) {
  const [text, button] = [box.querySelector("code, pre"), box.querySelector("button")];
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {
      getSelection().selectAllChildren(text);
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
}
