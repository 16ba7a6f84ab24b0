// Frames of a video with what is annotated and predicted there, played.

/** Marks the pixels of a mask with 1. Compressed COCO run lengths go down the columns. */
function decodeMask(counts, height, width) {
  const mask = new Uint8Array(height * width);
  const runs = [];
  let place = 0;
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = counts.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    if (runs.length % 2) {
      for (let i = place; i < place + value; i++) mask[(i % height) * width + Math.floor(i / height)] = 1;
    }
    place += value;
    runs.push(value);
  }
  return mask;
}

const TINT = 0.45;
const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

/** Tints a mask and draws its contour; returns the middle of its box, and its size. */
function paint(pixels, mask, height, width, color, strong) {
  const [red, green, blue] = rgb(color);
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      bottom = y;
      const inside =
        x > 0 && mask[i - 1] && x < width - 1 && mask[i + 1] && y > 0 && mask[i - width] && y < height - 1 && mask[i + width];
      const share = inside ? TINT : 1;
      const own = inside || !strong ? [red, green, blue] : [255, 255, 255];
      for (let c = 0; c < 3; c++) pixels[4 * i + c] += share * (own[c] - pixels[4 * i + c]);
    }
  }
  return right < 0 ? null : { x: (left + right + 1) / 2, y: (top + bottom + 1) / 2, top, wide: right - left + 1, tall: bottom - top + 1 };
}

/** Black or white, whichever reads better on a colour. */
function inkOn(color) {
  const linear = rgb(color).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return (luminance + 0.05) ** 2 > 0.05 * 1.05 ? "#000" : "#fff";
}

class Player {
  /**
   * @param picture one of data.pictures
   * @param panels [{title, tracks, marked: ids}], truth first
   * @param options frame (number in the video), failures [{frame, text}], onframe, compact
   */
  constructor(picture, panels, options = {}) {
    Object.assign(this, { picture, panels, options, index: 0, timer: null, masks: true, waiting: new Map() });
    this.count = picture.frames.length;
    this.images = picture.frames.map(() => null);
    this.work = document.createElement("canvas");
    this.work.width = picture.width;
    this.work.height = picture.height;
    this.element = this.build();
    this.show(clamp((options.frame ?? picture.first) - picture.first, 0, this.count - 1));
  }

  build() {
    const { picture, options } = this;
    this.canvases = this.panels.map((panel) =>
      h("canvas", { role: "img", "aria-label": panel.title, class: picture.width < 200 ? "coarse" : null }),
    );
    const scale = clamp(Math.round(800 / picture.width), 1, 8);
    for (const canvas of this.canvases) {
      canvas.width = picture.width * scale;
      canvas.height = picture.height * scale;
      canvas.style.setProperty("aspect-ratio", `${picture.width} / ${picture.height}`);
    }
    this.legends = this.panels.map(() => h("ul", { class: "legend" }));
    const figures = this.panels.map((panel, n) =>
      h("figure", {}, h("figcaption", { title: panel.title }, panel.title), this.canvases[n], options.compact ? null : this.legends[n]),
    );
    this.button = h("button", { type: "button", class: "play", onclick: () => this.toggle() }, "Play");
    this.slider = h("input", {
      type: "range",
      min: 0,
      max: this.count - 1,
      value: 0,
      "aria-label": "frame",
      oninput: () => {
        this.pause();
        this.show(Number(this.slider.value));
      },
    });
    this.output = h("output", {});
    const ticks = (options.failures ?? [])
      .filter(({ frame }) => frame >= picture.first && frame < picture.first + this.count)
      .map(({ frame, text }) =>
        h("span", {
          class: "tick",
          title: text,
          style: { left: `${(100 * (frame - picture.first)) / Math.max(1, this.count - 1)}%` },
        }),
      );
    const bar = h("div", { class: "bar" }, this.slider, h("div", { class: "ticks", "aria-hidden": "true" }, ticks));
    this.strip = h("canvas", {
      class: "strip",
      role: "img",
      "aria-label": `film strip: ${this.panels.map((panel) => panel.title).join(" above ")}`,
      onclick: (event) => this.seekAt(event),
    });
    return h(
      "div",
      { class: options.compact ? "player compact" : "player" },
      h("div", { class: "panels" }, figures),
      h("div", { class: "controls" }, this.button, bar, this.output),
      h("div", { class: "film" }, this.strip),
    );
  }

  get frame() {
    return this.picture.first + this.index;
  }

  image(index) {
    if (!this.images[index]) {
      const image = new Image();
      image.src = this.picture.frames[index];
      this.images[index] = image.decode().then(() => image);
    }
    return this.images[index];
  }

  /** Draws a frame of a panel with its masks on `work`; the boxes of these. */
  compose(image, index, panel) {
    const { width, height } = this.picture;
    const context = this.work.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    const frame = context.getImageData(0, 0, width, height);
    const shown = [];
    // The best tracks last, on top.
    for (const track of this.masks ? [...panel.tracks].reverse() : []) {
      const counts = track.masks[index];
      if (!counts) continue;
      const marked = panel.marked?.includes(track.id);
      const box = paint(frame.data, decodeMask(counts, height, width), height, width, track.color, marked);
      if (box) shown.push({ track, box });
    }
    context.putImageData(frame, 0, 0);
    return shown;
  }

  async show(index) {
    this.index = index;
    this.slider.value = index;
    const text = `frame ${this.frame}`;
    this.slider.setAttribute("aria-valuetext", text);
    this.output.textContent = `${text} of 0 to ${(this.options.length ?? this.count) - 1}`;
    this.options.onframe?.(this.frame);
    await (this.drawing = this.draw(index));
  }

  async draw(index) {
    const image = await this.image(index);
    if (index !== this.index) return; // too late: there is another frame by now
    for (const [n, panel] of this.panels.entries()) {
      const canvas = this.canvases[n];
      const shown = this.compose(image, index, panel);
      const context = canvas.getContext("2d");
      const scale = canvas.width / this.picture.width;
      context.imageSmoothingEnabled = !canvas.classList.contains("coarse");
      context.drawImage(this.work, 0, 0, canvas.width, canvas.height);
      const size = Math.round((canvas.width * 12) / clamp(canvas.clientWidth || 400, 160, 640));
      context.font = `600 ${size}px system-ui, sans-serif`;
      context.textBaseline = "middle";
      context.textAlign = "center";
      for (const { track, box } of shown) {
        const label = String(track.id);
        const wide = context.measureText(label).width + 0.7 * size;
        // On the object if it is large enough to be seen beside its number, else above it.
        const within = box.wide * scale > 2 * wide && box.tall * scale > 3 * size;
        const x = clamp(box.x * scale, wide / 2, canvas.width - wide / 2);
        const y = clamp(within ? box.y * scale : box.top * scale - 0.8 * size, 0.7 * size, canvas.height - 0.7 * size);
        context.fillStyle = track.color;
        context.beginPath();
        context.roundRect(x - wide / 2, y - 0.7 * size, wide, 1.4 * size, 0.35 * size);
        context.fill();
        context.fillStyle = inkOn(track.color);
        context.fillText(label, x, y + 0.05 * size);
      }
      canvas.dataset.frame = String(this.picture.first + index);
      this.legend(n, index);
    }
    await this.drawStrip();
  }

  legend(n, index) {
    const panel = this.panels[n];
    const items = panel.tracks.map((track) => {
      const score = track.score === undefined ? "" : ` ${track.score.toFixed(2)}`;
      const here = Boolean(track.masks[index]);
      const marked = panel.marked?.includes(track.id);
      return h(
        "li",
        { class: `${here ? "" : "absent"} ${marked ? "marked" : ""}`, title: here ? null : "not in this frame" },
        h("span", { class: "chip", style: { background: track.color, color: inkOn(track.color) } }, String(track.id)),
        ` ${track.label}${score}`,
      );
    });
    this.legends[n].replaceChildren(...(items.length ? items : [h("li", { class: "absent" }, "nothing")]));
  }

  /** The columns of the film strip: all frames, or some and those with failures. */
  columns() {
    if (this.cut) return this.cut;
    const most = this.options.compact ? 8 : 16;
    const failures = (this.options.failures ?? []).map(({ frame }) => frame - this.picture.first);
    const within = failures.flatMap((i) => [i - 1, i]).filter((i) => i >= 0 && i < this.count);
    const chosen = new Set(this.count <= most ? [] : within.slice(0, most / 2));
    for (let i = 0; i < most; i++) {
      if (chosen.size < Math.min(most, this.count)) chosen.add(Math.round((i * (this.count - 1)) / Math.max(1, most - 1)));
    }
    this.cut = [...chosen].sort((a, b) => a - b);
    this.failing = new Set(failures);
    return this.cut;
  }

  async drawStrip() {
    const columns = this.columns();
    const { width, height } = this.picture;
    const [cell, gap] = [96, 4];
    const tall = Math.round((cell * height) / width);
    const canvas = this.strip;
    if (!this.film) {
      this.film = document.createElement("canvas");
      canvas.width = this.film.width = columns.length * (cell + gap) + gap;
      canvas.height = this.film.height = this.panels.length * (tall + gap) + gap;
      const context = this.film.getContext("2d");
      for (const [k, index] of columns.entries()) {
        const image = await this.image(index);
        for (const [n, panel] of this.panels.entries()) {
          this.compose(image, index, panel);
          context.drawImage(this.work, gap + k * (cell + gap), gap + n * (tall + gap), cell, tall);
        }
      }
    }
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.film, 0, 0);
    const css = getComputedStyle(document.documentElement);
    for (const [k, index] of columns.entries()) {
      const here = index === this.index;
      if (!here && !this.failing.has(index)) continue;
      context.strokeStyle = css.getPropertyValue(here ? "--accent" : "--bad");
      context.lineWidth = gap;
      context.strokeRect(gap / 2 + k * (cell + gap), gap / 2, cell + gap, canvas.height - gap);
    }
    canvas.dataset.columns = columns.map((index) => this.picture.first + index).join(" ");
  }

  seekAt(event) {
    const columns = this.columns();
    const box = this.strip.getBoundingClientRect();
    const k = Math.floor(((event.clientX - box.left) / box.width) * columns.length);
    this.pause();
    this.show(columns[clamp(k, 0, columns.length - 1)]);
  }

  get playing() {
    return this.timer !== null;
  }

  play() {
    if (this.playing || this.count < 2) return;
    this.button.textContent = "Pause";
    this.timer = setInterval(() => this.show((this.index + 1) % this.count), this.options.pace ?? 160);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = "Play";
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  step(by) {
    this.pause();
    this.show(clamp(this.index + by, 0, this.count - 1));
  }

  switchMasks() {
    this.masks = !this.masks;
    this.film = null;
    this.show(this.index);
  }
}
