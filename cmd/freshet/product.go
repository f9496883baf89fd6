package main

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/freshet-ml/freshet/worker/model/sgemm"
)

// Who multiplies the matrices of networks with hidden layers.
const (
	productFreshet = "freshet"
	productGonum   = "gonum"
)

const productUsage = "who multiplies the matrices of hidden layers: freshet, or gonum to compare with"

func validProduct(name string) bool { return name == productFreshet || name == productGonum }

func badProduct(name string) error {
	return fmt.Errorf("--product %q: want %s or %s", name, productFreshet, productGonum)
}

// useProduct sets who multiplies the matrices of this process. It is to be called before
// anything is computed.
func useProduct(name string) {
	if name == productGonum {
		blas32.Use(gonum.Implementation{})
		return
	}
	blas32.Use(sgemm.Implementation{})
}
