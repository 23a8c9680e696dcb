/** The sheet that is drawn on: strokes by pointer and keyboard, a picture, undo and redo. */

export const WIDTH = 400; // of the sheet, in its own units
export const HEIGHT = 300;
const PEN = 22; // width of a stroke
const MARGIN = 30; // paper around the ink that is sent
const STEP = 10; // units that an arrow key moves the pen
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const limit = (value, most) => Math.min(Math.max(value, 0), most);

/** Draw strokes, lists of points [x, y, width], as smooth lines: curves from middle to middle of two points. */
function drawStrokes(context, strokes) {
  context.lineCap = context.lineJoin = "round";
  for (const [first, ...others] of strokes) {
    let [x, y, width] = first;
    let [fromX, fromY] = first;
    const curve = (toX, toY, wide) => {
      context.lineWidth = wide;
      context.beginPath();
      context.moveTo(fromX, fromY);
      context.quadraticCurveTo(x, y, toX, toY);
      context.stroke();
      [fromX, fromY] = [toX, toY];
    };
    for (const [nextX, nextY, nextWidth] of others) {
      curve((x + nextX) / 2, (y + nextY) / 2, (width + nextWidth) / 2);
      [x, y, width] = [nextX, nextY, nextWidth];
    }
    curve(x, y, width);
  }
}

/** Where the ink lies along an axis, with a margin: [first, how many]; the whole axis where there is none. */
function withMargin(places, size) {
  if (!places.length) return [0, size];
  let [low, high] = [size, 0];
  for (const place of places) [low, high] = [Math.min(low, place), Math.max(high, place)];
  const first = Math.max(0, low - MARGIN);
  return [first, Math.min(size, high + 1 + MARGIN) - first];
}

export class Paper {
  #states = [{ strokes: [], picture: null }]; // what undo goes back through
  #at = 0;
  #stroke = null; // that is being drawn
  #pen = { x: WIDTH / 2, y: HEIGHT / 4, down: false, shown: false }; // of the keyboard
  #held = new Set(); // arrow keys
  #pressed = null; // where the pointer went down on a picture
  #planned = false; // to be painted in the next frame
  #sent = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{changed: () => void, chosen: (index: number) => void}} tell what to call when there is other ink, and
   *   when a box of a picture was clicked
   */
  constructor(canvas, tell) {
    this.canvas = canvas;
    this.tell = tell;
    this.boxes = []; // {box: [left, top, right, bottom] in units of the sheet, label, chosen}
    Object.assign(this.#sent.canvas, { width: WIDTH, height: HEIGHT });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("keyup", (event) => this.#held.delete(event.key));
    canvas.addEventListener("focus", () => this.#lift(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => this.#lift(false));
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  get state() {
    return this.#states[this.#at];
  }

  get empty() {
    return !this.state.strokes.length && !this.state.picture;
  }

  get canUndo() {
    return this.#at > 0;
  }

  get canRedo() {
    return this.#at < this.#states.length - 1;
  }

  /** The point that was drawn last, or null. */
  get tip() {
    return this.state.strokes.at(-1)?.at(-1) ?? null;
  }

  undo() {
    this.#go(-1);
  }

  redo() {
    this.#go(1);
  }

  clear() {
    this.#lift(this.#pen.shown);
    if (!this.empty) this.#add({ strokes: [], picture: null });
  }

  /** Show a picture in place of strokes: {file, bitmap, answer}. */
  showPicture(picture) {
    this.#lift(false);
    this.#add({ strokes: [], picture });
  }

  /** Where a picture of this size lies on the sheet: [left, top, scale]. */
  static fit(width, height) {
    const scale = Math.min(WIDTH / width, HEIGHT / height);
    return [(WIDTH - width * scale) / 2, (HEIGHT - height * scale) / 2, scale];
  }

  /**
   * The strokes as they are sent, with some paper around them: a byte for each unit of the sheet, dark ink on white.
   * Returns {left, top, width, height, bytes}, the place on the sheet first.
   */
  pixels() {
    this.#sent.fillStyle = "white";
    this.#sent.fillRect(0, 0, WIDTH, HEIGHT);
    this.#sent.strokeStyle = "black";
    drawStrokes(this.#sent, this.state.strokes);
    const { data } = this.#sent.getImageData(0, 0, WIDTH, HEIGHT);
    const [columns, rows] = [[], []];
    for (let i = 0; i < WIDTH * HEIGHT; i++) {
      if (data[4 * i] === 255) continue;
      columns.push(i % WIDTH);
      rows.push(Math.floor(i / WIDTH));
    }
    const [left, width] = withMargin(columns, WIDTH);
    const [top, height] = withMargin(rows, HEIGHT);
    const bytes = new Uint8Array(width * height);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++) bytes[i++] = data[4 * ((top + y) * WIDTH + left + x)];
    }
    return { left, top, width, height, bytes };
  }

  /** Paint the sheet in the next frame. */
  paint() {
    if (this.#planned) return;
    this.#planned = true;
    requestAnimationFrame(() => {
      this.#planned = false;
      this.#paint();
    });
  }

  #paint() {
    const { canvas } = this;
    const scale = (canvas.clientWidth * devicePixelRatio) / WIDTH;
    const [width, height] = [Math.round(WIDTH * scale), Math.round(HEIGHT * scale)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const { color, accentColor } = getComputedStyle(canvas);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, WIDTH, HEIGHT);
    const { bitmap } = this.state.picture ?? {};
    if (bitmap) {
      const [left, top, size] = Paper.fit(bitmap.width, bitmap.height);
      context.drawImage(bitmap, left, top, bitmap.width * size, bitmap.height * size);
    }
    context.strokeStyle = color;
    drawStrokes(context, this.state.strokes);
    if (this.boxes.length > 1 || this.state.picture) this.#paintBoxes(context, accentColor);
    if (this.#pen.shown) this.#paintPen(context, accentColor);
  }

  #paintBoxes(context, color) {
    context.strokeStyle = context.fillStyle = color;
    context.font = "600 15px system-ui, sans-serif";
    for (const { box, label, chosen } of this.boxes) {
      const [left, top, right, bottom] = [box[0] - 5, box[1] - 5, box[2] + 5, box[3] + 5];
      context.lineWidth = chosen ? 2.5 : 1;
      context.setLineDash(chosen ? [] : [4, 4]);
      context.strokeRect(left, top, right - left, bottom - top);
      context.fillText(label, left + 1, top > 18 ? top - 5 : bottom + 16);
    }
    context.setLineDash([]);
  }

  #paintPen(context, color) {
    const { x, y, down } = this.#pen;
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x, y, PEN / 2, 0, 2 * Math.PI);
    if (down) context.fill();
    context.stroke();
    context.beginPath();
    for (const [dx, dy] of Object.values(ARROWS)) {
      context.moveTo(x + dx * (PEN / 2 + 2), y + dy * (PEN / 2 + 2));
      context.lineTo(x + dx * PEN, y + dy * PEN);
    }
    context.stroke();
  }

  #add(state) {
    this.#states = [...this.#states.slice(0, this.#at + 1), state];
    this.#at += 1;
    this.#changed();
  }

  #go(by) {
    this.#lift(this.#pen.shown);
    if (!this.#states[this.#at + by]) return;
    this.#at += by;
    this.#changed();
  }

  #changed() {
    this.paint();
    this.tell.changed();
  }

  /** Begin a stroke; a picture gives way to it. */
  #begin(point) {
    this.#stroke = [point];
    this.#add({ strokes: [...this.state.strokes, this.#stroke], picture: null });
  }

  #point(event) {
    const { left, top, width } = this.canvas.getBoundingClientRect();
    const scale = WIDTH / width;
    const pressed = event.pointerType === "pen" && event.pressure > 0 ? 0.5 + event.pressure : 1;
    return [(event.clientX - left) * scale, (event.clientY - top) * scale, PEN * pressed];
  }

  #down(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    this.#lift(false);
    this.canvas.setPointerCapture(event.pointerId);
    const point = this.#point(event);
    if (this.state.picture) this.#pressed = point;
    else this.#begin(point);
  }

  #move(event) {
    if (!event.isPrimary || !(event.buttons & 1)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const part of events.length ? events : [event]) {
      const point = this.#point(part);
      if (this.#pressed && Math.hypot(point[0] - this.#pressed[0], point[1] - this.#pressed[1]) > PEN / 2) {
        this.#begin(this.#pressed);
        this.#pressed = null;
      }
      this.#stroke?.push(point);
    }
    if (this.#stroke) this.#changed();
  }

  #up(event) {
    if (!event.isPrimary) return;
    if (this.#pressed) {
      const [x, y] = this.#pressed;
      const inside = ({ box }) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3];
      const index = this.boxes.findIndex(inside);
      if (index >= 0) this.tell.chosen(index);
    }
    this.#stroke = this.#pressed = null;
  }

  #lift(shown) {
    if (this.#pen.down) this.#stroke = null;
    Object.assign(this.#pen, { down: false, shown });
    this.#held.clear();
    this.paint();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pen = this.#pen;
    if (event.key === " " && !event.repeat) {
      if (pen.down) this.#lift(true);
      else {
        Object.assign(pen, { down: true, shown: true });
        this.#begin([pen.x, pen.y, PEN]);
      }
    } else if (event.key in ARROWS) {
      this.#held.add(event.key);
      pen.shown = true;
      for (const key of this.#held) {
        const [dx, dy] = ARROWS[key];
        pen.x = limit(pen.x + dx * (event.shiftKey ? STEP / 5 : STEP), WIDTH);
        pen.y = limit(pen.y + dy * (event.shiftKey ? STEP / 5 : STEP), HEIGHT);
      }
      if (pen.down) {
        this.#stroke.push([pen.x, pen.y, PEN]);
        this.#changed();
      } else this.paint();
    } else if (event.key !== " ") return;
    event.preventDefault();
  }
}
