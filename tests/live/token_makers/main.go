// tokens makes JSON Web Tokens with golang-jwt: a peer of tests/live/test_tokens.py.
//
// Standard input has a JSON array of {"alg", "claims", "header", "secret" or "pem"}; standard output gets a JSON array of tokens.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/golang-jwt/jwt/v5"
)

type wanted struct {
	Alg    string         `json:"alg"`
	Claims map[string]any `json:"claims"`
	Header map[string]any `json:"header"`
	Secret string         `json:"secret"`
	Pem    string         `json:"pem"`
}

func key(one wanted) (any, error) {
	switch one.Alg[:2] {
	case "HS":
		return []byte(one.Secret), nil
	case "RS", "PS":
		return jwt.ParseRSAPrivateKeyFromPEM([]byte(one.Pem))
	case "ES":
		return jwt.ParseECPrivateKeyFromPEM([]byte(one.Pem))
	}
	return jwt.ParseEdPrivateKeyFromPEM([]byte(one.Pem))
}

func sign(one wanted) (string, error) {
	token := jwt.NewWithClaims(jwt.GetSigningMethod(one.Alg), jwt.MapClaims(one.Claims))
	for name, value := range one.Header {
		token.Header[name] = value
	}
	secret, err := key(one)
	if err != nil {
		return "", err
	}
	return token.SignedString(secret)
}

func main() {
	var all []wanted
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	made := []string{}
	for _, one := range all {
		token, err := sign(one)
		if err != nil {
			fmt.Fprintln(os.Stderr, one.Alg, err)
			os.Exit(1)
		}
		made = append(made, token)
	}
	if err := json.NewEncoder(os.Stdout).Encode(made); err != nil {
		os.Exit(1)
	}
}
