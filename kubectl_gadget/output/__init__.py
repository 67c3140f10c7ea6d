"""Sinks, which turn rows into text: table, json, yaml, csv, …"""
