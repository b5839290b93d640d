// An OpenID issuer by oidc-provider, on 127.0.0.1, whose key is replaced in steps.
//
//   node oidc.mjs MODULES PORT ALGORITHM
//
// POST /token gives a token by the key in force, POST /next/token one by the key that follows it. POST /steps/publish: the
// next key stands in the JWKS; /steps/switch: it signs; /steps/retire: the former key is gone from the JWKS.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, port, algorithm] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(createRequire(`${modules}/`).resolve('oidc-provider')));
const issuer = `http://127.0.0.1:${port}`;

function key(kid) {
  const curve = { namedCurve: 'P-256' };
  const { privateKey } = algorithm === 'ES256' ? generateKeyPairSync('ec', curve) : generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid, alg: algorithm, use: 'sig' };
}

// Signs with the first of the keys.
function provider(...keys) {
  const server = { scope: 'read', audience: 'mesh', accessTokenTTL: 600, accessTokenFormat: 'jwt', jwt: { sign: { alg: algorithm } } };
  return new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'load', client_secret: 'secret', grant_types: ['client_credentials'], response_types: [], redirect_uris: [],
      id_token_signed_response_alg: algorithm,
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: { enabled: true, defaultResource: () => 'urn:mesh', getResourceServerInfo: () => server },
    },
  }).callback();
}

const [first, second] = [key('first'), key('second')];
let current = provider(first);
let next = provider(second, first);
const steps = {
  '/steps/publish': () => { current = provider(first, second); },
  '/steps/switch': () => { current = next; },
  '/steps/retire': () => { current = provider(second); },
};

createServer((request, response) => {
  const step = steps[request.url];
  if (step) {
    step();
    response.end('done');
  } else if (request.url.startsWith('/next/')) {
    request.url = request.url.slice('/next'.length);
    next(request, response);
  } else {
    current(request, response);
  }
}).listen(Number(port), '127.0.0.1');
