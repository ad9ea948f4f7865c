// Gives every request of the conformance suite the key in CONFORMANCE_KEY: it has no option for a credential.
'use strict';
const http = require('node:http');
const key = process.env.CONFORMANCE_KEY;

const withKey = (headers) => {
  const all = new Headers(headers);
  if (!all.has('x-api-key')) all.set('x-api-key', key);
  return all;
};

const fetched = globalThis.fetch;
globalThis.fetch = (input, init = {}) => {
  if (input instanceof Request) {
    const request = new Request(input, init);
    return fetched(new Request(request, { headers: withKey(request.headers) }));
  }
  return fetched(input, { ...init, headers: withKey(init.headers) });
};

const requested = http.request;
http.request = (...given) => {
  const options = given.find((one) => one && typeof one === 'object' && !(one instanceof URL));
  if (options) options.headers = { 'x-api-key': key, ...options.headers };
  return requested(...given);
};

// One scenario sends a Host of its own, which only undici's own function lets it do.
const undici = require('node:module').createRequire(process.argv[1])('undici');
const asked = undici.request;
undici.request = (url, options = {}) =>
  asked(url, { ...options, headers: { 'x-api-key': key, ...options.headers } });
