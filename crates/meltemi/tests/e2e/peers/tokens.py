"""Keys and tokens made by joserfc, printed as JSON: a JWKS (`keys`), and of each case its `name`, its `token`, and the `status`
that it has where issuer `https://issuer.example` and audience `mesh` are wanted: 200; 401 for what proves nothing; 403 for what
is meant for others.

  tokens.py
"""
import base64
import hashlib
import hmac
import json
import time
import warnings

from joserfc import jwe, jws, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

# That EdDSA has a newer name is known.
warnings.simplefilter("ignore")
ISSUER = "https://issuer.example"
RSA = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
ALL = RSA + [*CURVES, "EdDSA"]
NOW = int(time.time())

# What a key is for stands in the JWKS alone: with it joserfc would sign nothing else, and some tokens here are wrong in that.
keys = {name: RSAKey.generate_key(2048, {"kid": name}, private=True) for name in [*RSA, "bare"]}
keys |= {name: ECKey.generate_key(curve, {"kid": name}) for name, curve in CURVES.items()}
keys["EdDSA"] = OKPKey.generate_key("Ed25519", {"kid": "EdDSA"})
stranger = RSAKey.generate_key(2048, {"kid": "RS256"}, private=True)
cases = []
GOOD, FOR_OTHERS = 200, 403


def claims(**changes):
    whole = {"iss": ISSUER, "sub": "someone", "aud": "mesh", "exp": NOW + 3600, "iat": NOW, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def sign(algorithm, key, payload=None, **header):
    header = {"alg": algorithm, "kid": key.kid, **header}
    header = {name: value for name, value in header.items() if value is not None}
    return jwt.encode(header, payload or claims(), key, algorithms=[algorithm])


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def case(name, token, status=401):
    cases.append({"name": name, "token": token, "status": status})


def of_every_algorithm():
    for name in ALL:
        token = sign(name, keys[name])
        head, payload, signature = token.split(".")
        case(f"{name}", token, GOOD)
        case(f"{name} without a kid", sign(name, keys[name], kid=None), GOOD)
        case(f"{name} for a payload of another", f"{head}.{part(claims(sub='admin'))}.{signature}")
        raw = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
        raw[len(raw) // 2] ^= 1
        case(f"{name} with one bit of the signature turned", f"{head}.{payload}.{part(bytes(raw))}")
        case(f"{name} with half a signature", f"{head}.{payload}.{part(bytes(raw[: len(raw) // 2]))}")
        case(f"{name} without a signature", f"{head}.{payload}.")


def confusion():
    """Algorithms that are not the key's."""
    _, payload, signature = sign("RS256", keys["RS256"]).split(".")
    for name in ["none", "None", "NONE", "nOnE"]:
        case(f"alg {name} without a signature", f"{part({'alg': name})}.{payload}.")
        case(f"alg {name} with a signature", f"{part({'alg': name, 'kid': 'RS256'})}.{payload}.{signature}")
    for value in [None, 1, ["RS256"], {}, "", "rs256", "RS256 ", "ES256K", "HS256"]:
        case(f"alg {value!r}", f"{part({'alg': value, 'kid': 'RS256'})}.{payload}.{signature}")
    case("no alg", f"{part({'kid': 'RS256'})}.{payload}.{signature}")
    for name in ["RS256", "ES256"]:
        for form, public in [("PEM", keys[name].as_pem(private=False)), ("DER", keys[name].as_der(private=False))]:
            # By hand: joserfc makes no such thing.
            text = f"{part({'alg': 'HS256', 'kid': name})}.{part(claims())}"
            token = f"{text}.{part(hmac.digest(public, text.encode(), hashlib.sha256))}"
            case(f"the public {name} key in {form} as the secret of HS256", token)
    case("PS256 by a key of RS256", sign("PS256", keys["RS256"]))
    case("RS512 by a key of RS256", sign("RS512", keys["RS256"]))
    case("ES256 that says ES384", f"{part({'alg': 'ES384', 'kid': 'ES256'})}.{'.'.join(sign('ES256', keys['ES256']).split('.')[1:])}")
    case("EdDSA that names an RSA key", sign("EdDSA", keys["EdDSA"], kid="RS256"))
    for name in RSA:
        case(f"{name} by a key without alg", sign(name, keys["bare"]), GOOD)


def keys_of_strangers():
    case("a stranger's key under a known kid", sign("RS256", stranger))
    case("a stranger's key without a kid", sign("RS256", stranger, kid=None))
    case("a kid that nobody has", sign("RS256", keys["RS256"], kid="nobody"))
    case("an empty kid", sign("RS256", keys["RS256"], kid=""), GOOD)
    case("a kid in another case", sign("RS256", keys["RS256"], kid="rs256"))
    body = ".".join(sign("RS256", stranger).split(".")[1:])
    public = stranger.as_dict(private=False)
    for name, value in [("jwk", public), ("jku", "http://127.0.0.1:1/"), ("x5u", "http://127.0.0.1:1/")]:
        header = {"alg": "RS256", "kid": "RS256", name: value}
        data = f"{part(header)}.{body.split('.')[0]}"
        signature = jws.serialize_compact(header, json.dumps(claims()), stranger, algorithms=["RS256"]).split(".")[2] \
            if name == "jwk" else "AAAA"
        case(f"a stranger's key in the header as {name}", f"{data}.{signature}")
    case("a kid that is a number", f"{part({'alg': 'RS256', 'kid': 7})}.{body}")
    case("a kid that is a path", sign("RS256", stranger, kid="../../dev/null"))


def times_and_claims():
    def told(name, status=401, **changes):
        case(name, sign("ES256", keys["ES256"], claims(**changes)), status)

    told("ended an hour ago", exp=NOW - 3600)
    told("ended within the clocks' skew", GOOD, exp=NOW - 20)
    told("ends never", GOOD, exp=None)
    told("exp with a fraction", GOOD, exp=NOW + 3600.5)
    told("exp a text", exp=str(NOW + 3600))
    told("exp negative", exp=-1)
    told("exp beyond 64 bits", exp=1e30)
    told("exp a list", exp=[NOW + 3600])
    told("begins in an hour", nbf=NOW + 3600)
    told("begins within the clocks' skew", GOOD, nbf=NOW + 20)
    told("began", GOOD, nbf=NOW - 5)
    told("nbf a text", nbf="now")
    told("iat a text", iat="now")
    told("of another issuer", iss="https://other.example")
    told("of an issuer with a slash more", iss=ISSUER + "/")
    told("of no issuer", iss=None)
    told("of an issuer that is a list", iss=[ISSUER])
    told("for a list with us in it", GOOD, aud=["other", "mesh"])
    told("for a list without us", FOR_OTHERS, aud=["other", "mesh2"])
    told("for an empty list", FOR_OTHERS, aud=[])
    told("for nobody", FOR_OTHERS, aud=None)
    told("for us in another case", FOR_OTHERS, aud="Mesh")
    told("for us and a blank", FOR_OTHERS, aud="mesh ")
    told("for a number", aud=7)
    told("for a list with a number in it", aud=["mesh", 7])
    told("sub a number", sub=7)
    told("jti a number", jti=7)


def forms():
    good = sign("ES256", keys["ES256"])
    head, payload, signature = good.split(".")
    for name, token in [
        ("two parts", f"{head}.{payload}"),
        ("four parts", f"{good}.{signature}"),
        ("a dot at its end", good + "."),
        ("padding", f"{head}.{payload}.{signature}=="),
        ("the other base64", f"{head}.{payload}.{signature.replace('-', '+').replace('_', '/')}//"),
        ("no header", f".{payload}.{signature}"),
        ("no payload", f"{head}..{signature}"),
        ("a header that is a list", f"{part([])}.{payload}.{signature}"),
        ("a payload that is a text", jws.serialize_compact({"alg": "ES256", "kid": "ES256"}, '"text"', keys["ES256"])),
        ("a payload that is no JSON", jws.serialize_compact({"alg": "ES256", "kid": "ES256"}, "{'a': 1}", keys["ES256"])),
        ("one word", "token"),
    ]:
        case(f"form: {name}", token)
    case("encrypted", jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, b"{}", OctKey.generate_key(256)))
    case("a token of 40 KiB", sign("ES256", keys["ES256"], claims(filler="x" * 30_000)), GOOD)
    deep = "[" * 5000 + "]" * 5000
    text = json.dumps(claims())[:-1] + f', "deep": {deep}}}'
    case("lists in lists, 5,000 deep", jws.serialize_compact({"alg": "ES256", "kid": "ES256"}, text, keys["ES256"]))


of_every_algorithm()
confusion()
keys_of_strangers()
times_and_claims()
forms()


def public(name, key):
    uses = {} if name == "bare" else {"alg": name, "use": "sig"}
    return key.as_dict(private=False) | uses


print(json.dumps({"keys": [public(name, key) for name, key in keys.items()], "cases": cases}))
