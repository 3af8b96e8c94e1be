// Makes JSON Web Tokens with jose: a peer of tests/live/test_tokens.py.
// Standard input has a JSON array of {"alg", "claims", "header", "secret" or "pem"}; standard output gets a JSON array of tokens.
import { readFileSync } from "node:fs";
import { SignJWT, importPKCS8 } from "jose";

const made = [];
for (const { alg, claims, header, secret, pem } of JSON.parse(readFileSync(0, "utf8"))) {
  const key = secret ? new TextEncoder().encode(secret) : await importPKCS8(pem, alg);
  made.push(await new SignJWT(claims).setProtectedHeader({ alg, ...header }).sign(key));
}
process.stdout.write(JSON.stringify(made));
