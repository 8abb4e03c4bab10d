"use strict";
/* A case: its image, and over it the target, masks and prompts, each of which can be switched; clicks can be played. */
(function () {
  const { element, shape, number } = promptseg;
  const [FILL, DARK] = [72, 150]; // how opaque of 255
  const LINE = 1.5; // pixels of the screen, however large the image is shown
  const SECONDS = 0.8; // that a click is shown for
  const CLOSEST = 12; // times that zooming enlarges at most
  const FINE = 1200; // pixels of the canvas, about, so that lines are thin on small images too

  /* COCO's compressed runs -> Uint8Array of height * width, column by column. */
  function decode(text, height, width) {
    const mask = new Uint8Array(height * width);
    const counts = [];
    for (let i = 0; i < text.length; ) {
      let [value, shift, more] = [0, 0, true];
      while (more) {
        const digit = text.charCodeAt(i++) - 48;
        value |= (digit & 31) << shift;
        more = (digit & 32) !== 0;
        shift += 5;
        if (!more && digit & 16) value |= -1 << shift;
      }
      counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
    }
    counts.reduce((at, run, i) => {
      if (i % 2) mask.fill(1, at, at + run);
      return at + run;
    }, 0);
    return mask;
  }

  /* A mask's inside, transparent, and the line along its edge, each as a picture of `fine` times the mask's size. Outside
     of the line runs a dark one, without which it is lost on an image of its colour. */
  function layers(mask, [width, height], fine, colour, thick) {
    const [inside, line] = [new ImageData(width, height), new ImageData(width, height)];
    const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height &&
      mask[Math.floor(x / fine) * (height / fine) + Math.floor(y / fine)];
    const around = (x, y, far) => [at(x - far, y), at(x + far, y), at(x, y - far), at(x, y + far)];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const place = 4 * (y * width + x);
        const near = around(x, y, thick);
        if (!at(x, y)) near.some(Boolean) && line.data.set([0, 0, 0, DARK], place);
        else if (near.every(Boolean)) inside.data.set([...colour, FILL], place);
        else line.data.set([...colour, 255], place);
      }
    }
    return [inside, line];
  }

  /* Paint pictures over one another, and over what the canvas holds. */
  function paint(canvas, pictures) {
    const { width, height } = canvas;
    const single = Object.assign(document.createElement("canvas"), { width, height });
    for (const picture of pictures) {
      single.getContext("2d").putImageData(picture, 0, 0);
      canvas.getContext("2d").drawImage(single, 0, 0);
    }
  }

  promptseg.Viewer = class {
    /* layers: names of the masks that count, those in `on` are shown at first; keys: of the layers, one letter each */
    constructor(root, { images, pictures, layers, on, keys }) {
      Object.assign(this, { root, images, pictures, layers, picture: null, step: 0, timer: null });
      this.find = (part) => root.querySelector(`[data-part="${part}"]`);
      this.switches = {};
      this.keys = {};
      this.candidates = new Map();
      this.addSwitch("image", "image", "i", true);
      this.addSwitch("target", "target", "t", true);
      layers.forEach((layer, i) => this.addSwitch(layer, layer, keys[i], on.includes(layer)));
      this.addSwitch("prompts", "prompts", "p", true);
      this.addSwitch("zoom", "zoom in", "z", false);
      this.find("slider").addEventListener("input", (event) => this.goTo(Number(event.target.value)));
      this.find("play").addEventListener("click", () => this.play());
      this.find("back").addEventListener("click", () => this.goTo(this.step - 1));
      this.find("forth").addEventListener("click", () => this.goTo(this.step + 1));
    }

    addSwitch(name, label, key, on) {
      const [box, labelled] = this.makeSwitch(name, label, key, on);
      this.switches[name] = this.keys[key] = box;
      this.find("switches").append(labelled);
    }

    makeSwitch(name, label, key, on) {
      const box = element("input", { type: "checkbox", checked: on });
      box.addEventListener("change", () => this.draw());
      const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
      return [box, element("label", { class: `switch ${name}` }, box, swatch, `${label} `, element("kbd", {}, key))];
    }

    /* Show a case, or nothing where it is not drawn. */
    show(id) {
      this.stop();
      this.picture = this.pictures.get(id) || null;
      const { picture } = this;
      this.find("drawing").hidden = !picture;
      this.find("problems").replaceChildren(...(picture ? picture.problems : []).map((text) => element("li", {}, text)));
      if (!picture) return;
      const [height, width] = picture.shown;
      this.find("stage").style.setProperty("--ratio", String(width / height));
      this.fine = Math.max(1, Math.round(FINE / Math.max(width, height)));
      Object.assign(this.find("masks"), { width: width * this.fine, height: height * this.fine });
      this.find("prompts").setAttribute("viewBox", `-0.5 -0.5 ${picture.size[1]} ${picture.size[0]}`);
      const image = this.find("image");
      image.alt = `Image of case ${id}`;
      if (picture.image) image.src = this.images + picture.image;
      else image.removeAttribute("src");
      this.find("playback").hidden = picture.steps.length < 2;
      this.find("slider").max = picture.steps.length - 1;
      this.goTo(picture.steps.length - 1, true);
    }

    goTo(step, keepsPlaying = false) {
      if (!keepsPlaying) this.stop();
      this.step = Math.min(Math.max(0, step), this.picture.steps.length - 1);
      const slider = this.find("slider");
      slider.value = this.step;
      slider.setAttribute("aria-valuetext", `click ${this.step + 1} of ${this.picture.steps.length}`);
      this.listCandidates();
      this.draw();
    }

    play() {
      if (this.timer !== null) return this.stop();
      if (this.step === this.picture.steps.length - 1) this.goTo(0);
      this.find("play").textContent = "Pause";
      this.timer = window.setInterval(() => {
        if (this.step === this.picture.steps.length - 1) this.stop();
        else this.goTo(this.step + 1, true);
      }, 1000 * SECONDS);
    }

    stop() {
      window.clearInterval(this.timer);
      this.timer = null;
      this.find("play").textContent = "Play";
    }

    /* A switch for each candidate; those that were on stay on from click to click. */
    listCandidates() {
      const step = this.picture.steps[this.step];
      const before = [...this.candidates].filter(([, box]) => box.checked).map(([i]) => i);
      this.candidates = new Map();
      const labels = step.candidates.map((_, i) => {
        const scores = [["IoU", step.candidate_iou[i]], ["predicted", step.predicted_iou[i]]]
          .filter(([, value]) => value !== undefined).map(([name, value]) => `${name} ${number(value)}`);
        const label = [`candidate ${i}`, ...scores].join(", ");
        const [box, labelled] = this.makeSwitch("candidate", label, String(i), before.includes(i));
        this.candidates.set(i, box);
        return labelled;
      });
      this.find("candidates").replaceChildren(...labels);
      this.find("candidates").parentElement.hidden = labels.length < 2;
    }

    draw() {
      const { picture } = this;
      if (!picture) return;
      const step = picture.steps[this.step];
      const canvas = this.find("masks");
      const { width, height } = canvas;
      const thick = Math.max(1, Math.round((LINE * width) / this.find("stage").clientWidth / this.scale()));
      const masks = [];
      const add = (runs, name) =>
        masks.push(layers(decode(runs, ...picture.shown), [width, height], this.fine, this.colour(name), thick));
      if (picture.target && this.switches.target.checked) add(picture.target, "target");
      for (const [i, box] of this.candidates) if (box.checked) add(step.masks[step.candidates[i]], "candidate");
      for (const layer of this.layers) {
        if (this.switches[layer].checked && layer in step.layers) add(step.masks[step.layers[layer]], layer);
      }
      canvas.getContext("2d").clearRect(0, 0, width, height);
      paint(canvas, [...masks.map(([inside]) => inside), ...masks.map(([, line]) => line)]); // no line below an inside
      this.find("image").hidden = !(this.switches.image.checked && picture.image);
      this.find("prompts").replaceChildren(...(this.switches.prompts.checked ? this.prompts(step) : []));
      this.zoom();
      this.tell(step);
    }

    colour(layer) {
      return getComputedStyle(this.root).getPropertyValue(`--${layer}`).split(",").map(Number);
    }

    prompts(step) {
      const [height, width] = this.picture.size;
      const radius = Math.max(height, width) / 60 / this.scale();
      const boxes = step.boxes.map(([left, top, right, bottom]) =>
        shape("rect", { x: left - 0.5, y: top - 0.5, width: right - left + 1, height: bottom - top + 1 }));
      const points = step.points.map(([x, y, label], i) => {
        const newest = step.click > 0 && i === step.points.length - 1;
        const sign = `M${x - radius / 2} ${y}h${radius}` + (label ? `M${x} ${y - radius / 2}v${radius}` : "");
        return shape("g", { class: `point ${label ? "inside" : "outside"} ${newest ? "newest" : ""}` },
          shape("circle", { cx: x, cy: y, r: radius }), shape("path", { d: sign }));
      });
      return [...boxes, ...points];
    }

    scale() {
      if (!this.switches.zoom.checked || !this.picture.box) return 1;
      const [left, top, right, bottom] = this.picture.box;
      return Math.min(CLOSEST, Math.max(1, 1 / (1.8 * Math.max(right - left, bottom - top))));
    }

    /* Enlarge the surroundings of the target, without leaving the image. */
    zoom() {
      const scale = this.scale();
      const [left, top, right, bottom] = this.picture.box || [0, 0, 1, 1];
      const moved = (low, high) => -100 * Math.min(Math.max((low + high) / 2 - 0.5 / scale, 0), 1 - 1 / scale);
      const { style } = this.find("layers");
      style.setProperty("--scale", String(scale));
      style.transform = `scale(${scale}) translate(${moved(left, right)}%, ${moved(top, bottom)}%)`;
    }

    tell(step) {
      const { steps } = this.picture;
      const scored = this.layers.filter((layer) => layer in step.iou);
      const ious = scored.map((layer) => `${layer} ${number(step.iou[layer])}`).join(", ");
      const drawn = step.of > step.candidates.length ? ` Of ${step.of} masks only the one that counts is drawn.` : "";
      const click = steps.length > 1 ? `Click ${step.click} of ${steps.length}. ` : "";
      this.find("status").textContent = `${click}${ious ? `IoU: ${ious}.` : ""}${drawn}`;
      if (steps.length > 1) this.find("curve").replaceChildren(...this.curve(steps));
    }

    /* IoU after each click, and where we are. */
    curve(steps) {
      const x = (i) => 4 + (292 * i) / (steps.length - 1);
      const y = (iou) => 56 - 52 * iou;
      const lines = this.layers.filter((layer) => this.switches[layer].checked).map((layer) =>
        shape("polyline", { class: layer, points: steps.filter((s) => layer in s.iou)
          .map((s) => `${x(steps.indexOf(s))},${y(s.iou[layer])}`).join(" ") }));
      const grid = [0, 0.5, 1].map((iou) => shape("line", { class: "grid", x1: 4, x2: 296, y1: y(iou), y2: y(iou) }));
      return [...grid, ...lines, shape("line", { class: "now", x1: x(this.step), x2: x(this.step), y1: 2, y2: 58 })];
    }

    /* Answer a key; false where it means nothing here. */
    press(key) {
      const box = this.keys[key] || this.candidates.get(/^\d$/.test(key) ? Number(key) : null);
      const plays = { ",": () => this.goTo(this.step - 1), ".": () => this.goTo(this.step + 1), " ": () => this.play() };
      const clicks = this.picture && this.picture.steps.length > 1;
      const act = box ? () => box.click() : clicks && plays[key];
      if (act) act();
      return Boolean(act);
    }
  };
})();
