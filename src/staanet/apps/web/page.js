() => {
  // Which of the three sounds is heard: the others stand still, and the position stays.
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".staanet-listen button");
    if (!button) return;
    const box = button.closest(".staanet-listen");
    const current = box.querySelector("audio:not([hidden])");
    const next = box.querySelector(`audio[data-sound="${button.dataset.sound}"]`);
    if (next === current) return;
    const playing = !current.paused;
    current.pause();
    next.currentTime = current.currentTime;
    current.hidden = true;
    next.hidden = false;
    for (const other of box.querySelectorAll("button")) other.setAttribute("aria-pressed", other === button);
    if (playing) next.play();
  });
}
