for (const figure of document.querySelectorAll("figure[data-gain]")) {
  const label = figure.querySelector(".amplify");
  if (!label) continue;
  const audio = figure.querySelector("audio"), slider = label.querySelector("input");
  const top = Number(figure.dataset.gain);
  label.hidden = false;
  figure.querySelector("figcaption").textContent = "perturbation, amplified";
  slider.addEventListener("input", () => {
    audio.volume = 10 ** ((Number(slider.value) - top) / 20);
    label.querySelector("output").textContent = slider.value;
  });
}
