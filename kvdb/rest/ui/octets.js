// Keys and values are bytes.  A key is held as a string of one character a byte,
// so that strings compare as the server orders keys.

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const PIECE = 8192; // characters made at a time: arguments of a call are limited

export const fromText = (text) => encoder.encode(text);

/** The text, or null where the bytes are no UTF-8. */
export function toText(octets) {
  try {
    return decoder.decode(octets);
  } catch {
    return null;
  }
}

export function toBinary(octets) {
  let made = "";
  for (let at = 0; at < octets.length; at += PIECE) {
    made += String.fromCharCode(...octets.subarray(at, at + PIECE));
  }
  return made;
}

export function fromBinary(binary) {
  const made = new Uint8Array(binary.length);
  for (let at = 0; at < made.length; at += 1) made[at] = binary.charCodeAt(at);
  return made;
}

export const toBase64 = (octets) => btoa(toBinary(octets));

/** The bytes, or null where the text is no Base64. */
export function fromBase64(text) {
  try {
    return fromBinary(atob(text.replace(/\s+/g, "")));
  } catch {
    return null;
  }
}

/** What stands in JSON as `name`, or in Base64 as `name_base64`; null if neither does. */
export function field(object, name) {
  if (typeof object[name] === "string") return fromText(object[name]);
  const other = object[name + "_base64"];
  return typeof other === "string" ? fromBase64(other) : null;
}

/**
 * Whether a text box gives back what is put into it: it knows one kind of line's
 * end, and shows no control characters.
 */
export const isPlain = (text) => !/[\u0000-\u0008\u000b-\u001f\u007f]/.test(text);

/** Percent-encoded, slashes too: "/../" in an address would be resolved away. */
export function percent(binary) {
  return binary.replace(/[^A-Za-z0-9_~.-]/g, (c) =>
    "%" + c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0"));
}

/** The opposite, for what stands in this page's own address. */
export function unpercent(text) {
  return toBinary(fromText(text)).replace(/%([0-9A-Fa-f]{2})/g, (_, hex) =>
    String.fromCharCode(parseInt(hex, 16)));
}

/** What is not to be seen, or has other text seen in another order; but not joiners. */
const UNSEEN = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** For people: as text, or with what is none as \xNN; what is not to be seen as \u{N}. */
export function readable(binary) {
  const text = toText(fromBinary(binary));
  if (text !== null && isPlain(text)) {
    return text.replace(/\n/g, "\\n").replace(/\t/g, "\\t")
      .replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  }
  return binary.replace(/[^\x20-\x7e]/g, (c) =>
    "\\x" + c.charCodeAt(0).toString(16).padStart(2, "0"));
}

/** Lines of offset, sixteen bytes, and their ASCII. */
export function hexdump(octets, most) {
  const lines = [];
  const end = Math.min(octets.length, most);
  for (let at = 0; at < end; at += 16) {
    const row = octets.subarray(at, Math.min(at + 16, end));
    const hex = Array.from(row, (b) => b.toString(16).padStart(2, "0"));
    const seen = Array.from(row, (b) => (b >= 32 && b < 127 ? String.fromCharCode(b) : "·"));
    lines.push(at.toString(16).padStart(8, "0") + "  "
      + hex.slice(0, 8).join(" ").padEnd(23) + "  " + hex.slice(8).join(" ").padEnd(23)
      + "  " + seen.join(""));
  }
  return lines.join("\n");
}
