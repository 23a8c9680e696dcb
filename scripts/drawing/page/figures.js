/** Images, maps and bars as the page shows them. */

const FOR = [217, 95, 2]; // colour of what is above 0: it speaks for an answer
const AGAINST = [31, 120, 200]; // below 0

/** The bytes of text in base64. */
export function decode(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** Bytes as text in base64. */
export function encode(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

/** Give every pixel of a canvas the colour [red, green, blue, alpha] of its value. */
function paint(canvas, width, values, colour) {
  const height = values.length / width;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  values.forEach((value, i) => image.data.set(colour(value, i), 4 * i));
  context.putImageData(image, 0, 0);
}

/** An image as the network gets it: rows of 0 to 255, ink is white. */
export function paintImage(canvas, rows) {
  paint(canvas, rows[0].length, rows.flat(), (value) => [value, value, value, 255]);
}

/** Rows of signed numbers in two colours, above the image that they belong to. Returns the largest magnitude. */
export function paintSigned(canvas, rows, image) {
  const values = rows.flat();
  const ink = image.flat();
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  paint(canvas, rows[0].length, values, (value, i) => {
    const strength = largest > 0 ? Math.abs(value) / largest : 0;
    const grey = (0.3 * (1 - strength) * ink[i]) / 255;
    const alpha = strength + grey;
    const share = alpha > 0 ? strength / alpha : 0;
    const part = (value < 0 ? AGAINST : FOR).map((colour) => colour * share + 128 * (1 - share));
    return [...part, 255 * alpha];
  });
  return largest;
}

/** A feature map in the same two colours: bytes, 0 for the value `low` and 255 for `high`. */
export function paintMap(canvas, width, bytes, low, high) {
  const largest = Math.max(Math.abs(low), Math.abs(high)) || 1;
  paint(canvas, width, Array.from(bytes), (byte) => {
    const value = low + ((high - low) * byte) / 255;
    return [...(value < 0 ? AGAINST : FOR), (255 * Math.abs(value)) / largest];
  });
}

/** Nothing. */
export function paintNothing(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

/** A probability for people: "98.3 %"; none is called certain or impossible. */
export function percent(probability) {
  if (probability > 0.999) return "> 99.9 %";
  if (probability < 0.0005) return "< 0.1 %";
  return `${(100 * probability).toFixed(1)} %`;
}
