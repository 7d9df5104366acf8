// What is known of a key, in words.

/** A ratio to uniform, with no more digits than it is right to. */
export function figure(ratio) {
  return ratio < 9.95 ? ratio.toFixed(1) : Math.round(ratio).toLocaleString("en");
}

/** A share of all attention, in percent. */
export function percent(share) {
  const value = 100 * share;
  return `${value >= 9.95 ? Math.round(value) : Number(value.toPrecision(2))} %`;
}

/** Where a token is and how much attention it gets, of so many tokens. place: { frame, row, column } or undefined. */
export function ofMass({ token, place, ratio, tokens }) {
  const where = place ? `frame ${place.frame}, row ${place.row}, column ${place.column}` : "outside the frames";
  return `token ${token} · ${where} · ${figure(ratio)} × uniform, ${percent(ratio / tokens)} of all attention`;
}

/** What else is known of a head's strongest keys; of others nothing (known is undefined). */
export function ofKey(known, strongest) {
  if (!known) return `participation ratio and norms are kept of a head's ${strongest} strongest keys only`;
  const value = Number.isFinite(known.valueNorm) ? `${length(known.valueNorm)} ×` : "not recorded";
  return `participation ratio ${known.participation.toFixed(2)} · key norm ${length(known.keyNorm)} × the median · value norm ${value}`;
}

function length(ratio) {
  return ratio < 9.95 ? ratio.toFixed(2) : figure(ratio);
}
